# SPDX-License-Identifier: Apache-2.0
"""Takes a PyTorch model to a device."""

__version__ = "0.1.0"
