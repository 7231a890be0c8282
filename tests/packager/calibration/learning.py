# SPDX-License-Identifier: Apache-2.0
"""Two small models, and what they learn in a minute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Data = tuple[Tensor, Tensor]
COUNT, CLASSES = 2048, 8


class Shapes(nn.Module):
    """A small convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(512, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.head(self.features(image).flatten(1))
        return made


class Sequences(nn.Module):
    """A small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(16, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, steps: Tensor) -> Tensor:
        made: Tensor = self.head(self.encoder(self.embedding(steps)).mean(1))
        return made


def images(seed: int) -> Data:
    """Gratings of eight directions in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    angle = labels * torch.pi / CLASSES
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y
    phase = torch.rand(COUNT, 1, 1, generator=generator) * 6.3
    noise = torch.randn(COUNT, 16, 16, generator=generator)
    return (torch.sin(along * 1.2 + phase) + 2.2 * noise)[:, None], labels


def sequences(seed: int) -> Data:
    """Steps of which a few show the class, at places that differ."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    steps = torch.randn(COUNT, 12, 16, generator=generator)
    places = torch.randint(0, 12, (COUNT, 3), generator=generator)
    for place in places.T:
        steps[torch.arange(COUNT), place, labels] += 2.4
    return steps, labels


def trained(module: nn.Module, data: Data, rate: float) -> nn.Module:
    """The module after a few rounds over the data."""
    inputs, labels = data
    optimizer = torch.optim.AdamW(module.parameters(), rate)
    order = torch.Generator().manual_seed(0)
    for _ in range(8):
        for rows in torch.randperm(COUNT, generator=order).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return module.eval().requires_grad_(False)


def accuracy(run: Callable[[Tensor], Tensor], data: Data) -> float:
    """The share of right answers in percent."""
    inputs, labels = data
    return 100 * (run(inputs).argmax(1) == labels).float().mean().item()
