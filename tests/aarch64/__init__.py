# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/aarch64_smoke`` does: bundles of this machine on an old PyTorch for Arm."""
