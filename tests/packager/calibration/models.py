# SPDX-License-Identifier: Apache-2.0
"""Small models to quantize, and what gives them data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trtpack.calibration.request import Quantization, Sample
from trtpack.capture import Captured, capture
from trtpack.lowering import Lowered, lower
from trtpack.options import ObserverName, Pin
from trtpack.precision.plan import Request
from trtpack.precision.running import named_inputs, run_graph

SHAPE = (4, 3, 16, 16)


class Residual(nn.Module):
    """Convolutions, a residual, a join, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second, self.third = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fourth = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        y = (self.third(self.second(x).relu()) + x).relu()
        y = self.fourth(torch.cat([y, x], 1)).relu()
        pooled: Tensor = nn.functional.adaptive_avg_pool2d(y, 1).flatten(1)
        answer: Tensor = self.head(pooled)
        return answer


def residual() -> tuple[Residual, tuple[Tensor]]:
    """The model in evaluation mode, and an input."""
    torch.manual_seed(0)
    return Residual().eval(), (torch.randn(SHAPE),)


class Uneven(nn.Module):
    """One layer whose inputs have outliers, and others that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.calm = nn.Linear(32, 32)
        self.wild = nn.Linear(32, 32)
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.calm(x).relu()
        x = torch.cat([x[:, :1] * 3000, x[:, 1:]], 1)
        made: Tensor = self.head(self.wild(x).relu())
        return made


def uneven() -> tuple[Uneven, tuple[Tensor]]:
    """That model, which undoes the outliers, and an input."""
    torch.manual_seed(0)
    module, args = Uneven().eval(), (torch.randn(16, 32),)
    with torch.no_grad():
        module.wild.weight[:, 0] /= 3000
    return module, args


def captured_of(module: nn.Module, args: tuple[Tensor, ...]) -> Captured:
    """The model captured with fixed sizes."""
    return capture(module, args, {}, None, {})


def samples_of(captured: Captured, count: int = 4) -> list[Sample]:
    """Random images."""
    generator = torch.Generator().manual_seed(1)
    return [
        named_inputs(captured, (torch.randn(SHAPE, generator=generator),)) for _ in range(count)
    ]


def quantized(
    module: nn.Module,
    args: tuple[Tensor, ...],
    dtype: str = "INT8",
    observer: ObserverName = "minmax",
    *,
    samples: Iterable[Sample] | None = None,
    pins: tuple[Pin, ...] = (),
    mixed: bool = False,
    block: int | None = None,
    stored: bool = False,
    device: torch.device | None = None,
) -> Lowered:
    """The model lowered and quantized, by values measured on ``device``; with ``mixed`` the rest is
    in float16 too."""
    captured = captured_of(module, args)
    data = samples_of(captured) if samples is None else samples
    where = device or torch.device("cpu")
    asked = Quantization(dtype, observer, lambda: data, None, pins, block, stored, where)
    return lower(captured, precision=Request("int8") if mixed else None, quantization=asked)


def answer(lowered: Lowered, args: tuple[Tensor, ...]) -> Tensor:
    """What the lowered graph answers."""
    captured = lowered.captured
    return run_graph(captured.graph_module, named_inputs(captured, args))[0]


def cosine(left: Tensor, right: Tensor) -> float:
    """How alike two tensors are."""
    return nn.functional.cosine_similarity(left.flatten(), right.flatten(), 0).item()
