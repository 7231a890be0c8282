# SPDX-License-Identifier: Apache-2.0
"""What a lowered graph answers in PyTorch, in the types of its precision plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from trtpack_runtime.tf32 import full_float32

from ..capture import Captured
from ..golden import GoldenSample
from ..output_names import output_names
from ..precision.rules import need
from ..precision.running import named_inputs, run_graph
from .metric import Run

_HALF_STEP, _KEPT_BITS = 0x1000, -0x2000
"""Of float32's 23 bits of a fraction TF32 keeps the upper ten."""


def answers(
    captured: Captured,
    graph: fx.GraphModule,
    golden: Sequence[GoldenSample],
    *,
    tf32: bool = False,
) -> list[tuple[torch.Tensor, ...]]:
    """For each golden sample the outputs in the order of ``output_names``, then the new state."""
    places = (*output_names(captured).values(), *(state.output for state in captured.state))
    found = []
    for sample in golden:
        given = named_inputs(captured, sample.inputs, sample.before)
        with full_float32():
            made = run_graph(graph, given, prepare=round_products if tf32 else None)
        found.append(tuple(made[place] for place in places))
    return found


def as_model(captured: Captured, graph: fx.GraphModule) -> Run:
    """A graph that is called as the model is; every call begins with the initial state."""

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves = captured.in_spec.flatten_up_to((args, kwargs))
        given = [v for v, name in zip(leaves, captured.inputs, strict=True) if name is not None]
        made = run_graph(graph, named_inputs(captured, given))
        outputs = captured.outputs
        answered = [made[o] if isinstance(o, int) else next(iter(o.values())) for o in outputs]
        return pytree.tree_unflatten(answered, captured.out_spec)

    return run


def round_products(node: fx.Node, arguments: Any) -> Any:
    """The arguments of a product rounded as TF32 does; of all else as they are."""
    if node.op != "call_function" or need(node)[0] != "product":
        return arguments
    return pytree.tree_map_only(torch.Tensor, as_tf32, arguments)


def as_tf32(value: torch.Tensor) -> torch.Tensor:
    """float32 numbers with ten bits of a fraction, rounded to the nearest."""
    if value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    rounded = ((bits + _HALF_STEP) & _KEPT_BITS).view(torch.float32)
    return torch.where(value.isfinite(), rounded, value)
