# SPDX-License-Identifier: Apache-2.0
"""Small models, alive, and what they are in other types."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import fx, nn

from trtpack.capture import Captured, capture
from trtpack.livening import liven
from trtpack.lowering import Lowered, lower
from trtpack.lowering.autocast import autocast, copied
from trtpack.lowering.graph import run_pass
from trtpack.options import PinName, PrecisionName
from trtpack.precision.names import parse_pin
from trtpack.precision.plan import Request
from trtpack.precision.running import named_inputs, run_graph
from trtpack_runtime.smoke import Metrics, compare

T = torch.Tensor


class Convolutional(nn.Module):
    """Two blocks with a residual, a norm that folds, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: T) -> T:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.block(x)).relu()
        return self.head(x.mean((2, 3)))


class Attending(nn.Module):
    """One block of a transformer, with a mask of float32's lowest numbers, and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: T, mask: T) -> T:
        hidden = (1.0 - mask[:, None, None].to(x.dtype)) * torch.finfo(torch.float32).min
        y = self.first(x)
        q, k, v = (
            layer(y).unflatten(-1, (2, 8)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, hidden)
        x = x + y.transpose(1, 2).flatten(2)
        x = x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))
        return self.head(x[:, 0]).softmax(-1)


class Loud(nn.Module):
    """Right in float32; its square is more than float16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: T) -> T:
        x = self.before(x) * 400
        x = x / torch.sqrt(x * x + 1)
        return self.head(x)


@functools.cache
def convolutional() -> tuple[nn.Module, tuple[T, ...]]:
    return alive(Convolutional(), torch.randn(2, 3, 8, 8))


@functools.cache
def attending() -> tuple[nn.Module, tuple[T, ...]]:
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    return alive(Attending(), torch.randn(2, 6, 16), mask)


@functools.cache
def loud() -> tuple[nn.Module, tuple[T, ...]]:
    return alive(Loud(), torch.randn(3, 8))


def alive(module: nn.Module, *args: T) -> tuple[nn.Module, tuple[T, ...]]:
    torch.manual_seed(0)
    liven(module.eval(), args)
    return module.requires_grad_(False), args


def lowered(
    model: tuple[nn.Module, tuple[T, ...]],
    precision: PrecisionName | None,
    *pins: str,
    dynamic: Any = None,
) -> Lowered:
    """A model in other types; one that was asked for before is not captured again."""
    module, args = model
    wide = _captured(module, args, dynamic)
    captured = dataclasses.replace(wide.captured, graph_module=copied(wide.captured.graph_module))
    graph, recipes = captured.graph_module, dict(wide.recipes)
    graph.meta["weights"] = wide.captured.graph_module.meta["weights"]
    graph.meta["precision"] = request(wide.captured, args, precision, *pins)
    effects = {"autocast": run_pass(autocast, graph, recipes)}
    return Lowered(captured, recipes, effects, graph.meta["plan"], graph.meta["uncast"])


def _captured(module: nn.Module, args: tuple[T, ...], dynamic: Any) -> Lowered:
    key = id(module), dynamic is not None
    if key not in _CAPTURED:
        _CAPTURED[key] = module, lower(capture(module, args, dynamic_shapes=dynamic))
    return _CAPTURED[key][1]


_CAPTURED: dict[tuple[int, bool], tuple[nn.Module, Lowered]] = {}
"""By module, which is kept so that its identity stays its own."""


def request(
    captured: Captured, args: tuple[T, ...], precision: PrecisionName | None, *pins: str
) -> Request:
    samples = (named_inputs(captured, args),)
    return Request(precision, tuple(map(parse_pin, pins)), samples)


def answer(made: Lowered, args: tuple[T, ...]) -> T:
    given = named_inputs(made.captured, args)
    return run_graph(made.captured.graph_module, given)[0]


def distance(made: Lowered, model: tuple[nn.Module, tuple[T, ...]]) -> Metrics:
    """How far the lowered graph is from the model, in the types that it has."""
    module, args = model
    got, wanted = answer(made, args), module(*args)
    assert got.dtype == wanted.dtype
    return compare(got, wanted)


def precisions(made: Lowered) -> dict[str, str]:
    return {row.node: row.precision for row in made.plan.rows}


def casts(graph: fx.GraphModule) -> list[fx.Node]:
    target = torch.ops.aten._to_copy.default
    return list(graph.graph.find_nodes(op="call_function", target=target))


PINS: tuple[PinName, ...] = ("fp32", "fp16", "fp16-fp32acc", "bf16")
