# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own samples of every operator (OpInfo), converted and held against eager PyTorch."""
