# SPDX-License-Identifier: Apache-2.0
"""A small network for other libraries to quantize."""

from __future__ import annotations

import torch
from torch import nn

T = torch.Tensor


class Small(nn.Module):
    """Two convolutions with a sum, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.hidden, self.head = nn.Linear(8, 64), nn.Linear(64, 4)

    def forward(self, x: T) -> T:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x) + x)
        return self.head(self.relu(self.hidden(self.pool(x).flatten(1))))


def small() -> Small:
    """The same network every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        return Small().eval()


def images(count: int = 2) -> T:
    """The same images every time."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(4))
