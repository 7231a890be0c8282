# SPDX-License-Identifier: Apache-2.0
"""The model of the host images' health check."""

from __future__ import annotations

import torch


def make() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Two layers with a sample input."""
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    return layers.eval(), (torch.randn(2, 8),)
