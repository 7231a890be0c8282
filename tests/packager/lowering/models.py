# SPDX-License-Identifier: Apache-2.0
"""Hand-written modules lowered whole, and held to their own numbers through a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trtpack.capture import capture
from trtpack.convert import convert
from trtpack.lowering import lower
from trtpack.target import find_target
from trtpack_runtime import reference

TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Outcome:
    """What the passes did: rewrites by pass, operators left, and layers of the network."""

    effects: Counter[str]
    operators: Counter[str]
    layers: Counter[str]
    recipes: int


def lowered(
    function: Callable[..., Any] | nn.Module,
    *args: torch.Tensor,
    dynamic: Any = None,
    target: str = "rtx-4090",
) -> Outcome:
    """Lowers and converts; the network has to answer what eager PyTorch does."""

    class Wrapped(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> Any:
            return function(*inputs)

    module = (function if isinstance(function, nn.Module) else Wrapped()).eval()
    with torch.no_grad():
        want = module(*args)
    captured = capture(module, args, dynamic_shapes=dynamic)
    result = lower(captured)
    graph = captured.graph_module.graph
    operators = Counter(
        str(n.target).removeprefix("aten.") for n in graph.nodes if n.op == "call_function"
    )
    segment = convert(captured.graph_module, find_target(target), captured.ranges, result.recipes)
    names = [n.name for n in graph.find_nodes(op="placeholder")]
    have = reference.evaluate(
        segment.network, segment.constants, dict(zip(names, args, strict=True))
    )
    wanted = want if isinstance(want, tuple) else (want,)
    for a, b in zip(have, wanted, strict=True):
        tolerance = TOLERANCES[b.dtype]
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    layers = Counter(layer.kind for layer in segment.network.layers)
    return Outcome(Counter(dict(result.effects)), operators, layers, len(result.recipes))
