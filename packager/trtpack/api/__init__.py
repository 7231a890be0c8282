# SPDX-License-Identifier: Apache-2.0
"""What ``import trtpack`` offers: building, compiling and tracing from Python."""
