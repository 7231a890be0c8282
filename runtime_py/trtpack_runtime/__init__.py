# SPDX-License-Identifier: Apache-2.0
"""Loads and runs trtpack bundles."""

__version__ = "0.1.0"
