# SPDX-License-Identifier: Apache-2.0
"""Runs a plan by the evaluator and compares it with the eager model in float32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from trtpack.buffers import unchanged_buffers
from trtpack.capture import attribute
from trtpack.convert import ConvertedSegment
from trtpack.golden import copied
from trtpack.lowering import Lowered
from trtpack.planning import Planned
from trtpack_runtime.reference import evaluate
from trtpack_runtime.smoke import compare

T = torch.Tensor


def agreement(
    eager: torch.nn.Module,
    lowered: Lowered,
    planned: Planned,
    calls: Sequence[tuple[Any, ...]],
) -> dict[str, float]:
    """The worst figures over all calls and outputs.

    ``rel_l2`` and ``cosine`` are of floats, ``differing`` is the share of unequal integers.
    """
    with torch.no_grad():
        have = [outputs_of(lowered, planned, args) for args in calls]
        return _worst(have, [answers_of(eager, _wide(args)) for args in calls])


def own_cosine(half: torch.nn.Module, eager: torch.nn.Module, args: tuple[Any, ...]) -> float:
    """How far eager PyTorch in float16 departs from float32; 0 where it is infinite or NaN."""
    with torch.no_grad():
        have, want = answers_of(half, args), answers_of(eager, _wide(args))
    cosine = _worst([have], [want])["cosine"]
    return cosine if math.isfinite(cosine) else 0.0


def answers_of(model: torch.nn.Module, args: tuple[Any, ...]) -> list[T]:
    """The tensors eager PyTorch answers."""
    with unchanged_buffers(model):
        answer = model(*copied((args, {}))[0])
    return [t for t in pytree.tree_leaves(answer) if isinstance(t, T)]


def _worst(have: Sequence[list[T]], wanted: Sequence[list[T]]) -> dict[str, float]:
    rel_l2, cosine, differing = 0.0, 1.0, 0.0
    for ours, answer in zip(have, wanted, strict=True):
        for got, want in zip(ours, answer, strict=True):
            if got.shape != want.shape:
                raise AssertionError(f"answers {tuple(got.shape)}, not {tuple(want.shape)}")
            metrics = compare(got, want)
            if want.is_floating_point() and want.numel():
                rel_l2 = max(rel_l2, metrics.rel_l2)
                cosine = min(cosine, metrics.cosine)
            elif metrics.differing:
                differing = max(differing, metrics.differing / metrics.elements)
    return {
        "rel_l2": rel_l2 if math.isfinite(rel_l2) else 1e9,
        "cosine": cosine,
        "differing": differing,
    }


def outputs_of(lowered: Lowered, planned: Planned, args: tuple[Any, ...]) -> list[T]:
    """The user's tensor outputs: TensorRT segments by the evaluator, the others by PyTorch."""
    captured, plan = lowered.captured, planned.plan
    module = captured.graph_module
    leaves = pytree.tree_leaves(args)
    values = {n: v for n, v in zip(captured.inputs, leaves, strict=True) if n is not None}
    values |= {slot.input: attribute(module, slot.slot) for slot in captured.state}
    values |= {name: attribute(module, stored) for name, stored in plan.constants.items()}
    for segment in plan.segments:
        inputs = {name: values[name] for name in segment.inputs}
        converted = planned.converted.get(segment.name)
        if converted is None:
            answers = _Sized(segment.graph_module, inputs).run(*inputs.values())
        else:
            answers = _evaluated(converted, inputs)
        values |= zip(segment.outputs, answers, strict=True)
    answered = [values[name] for name in plan.outputs]
    return [answered[o] for o in captured.outputs if isinstance(o, int)]


class _Sized(fx.Interpreter):
    """Runs a graph whose arguments may be sizes, as lowering leaves them."""

    def __init__(self, module: fx.GraphModule, inputs: Mapping[str, T]) -> None:
        super().__init__(module)
        self._sizes: dict[sympy.Basic, int] = {}
        for node in module.graph.find_nodes(op="placeholder"):
            given = zip(node.meta["val"].shape, inputs[node.name].shape, strict=True)
            self._sizes |= {s.node.expr: n for s, n in given if isinstance(s, torch.SymInt)}

    def fetch_args_kwargs_from_env(self, node: fx.Node) -> Any:
        given = super().fetch_args_kwargs_from_env(node)
        return pytree.tree_map_only(torch.SymInt, self._size, given)

    def _size(self, size: torch.SymInt) -> int:
        return int(size.node.expr.subs(self._sizes))


def _evaluated(segment: ConvertedSegment, inputs: dict[str, T]) -> list[T]:
    network = segment.network
    given = {tensor.name: inputs[tensor.name] for tensor in network.inputs}
    found = dict(zip(network.outputs, evaluate(network, segment.constants, given), strict=True))
    sources = {"input": inputs, "constant": segment.constants, "output": found}
    return [
        found[output] if isinstance(output, str) else sources[output.kind][output.name]
        for output in segment.outputs
    ]


def _wide(args: tuple[Any, ...]) -> tuple[Any, ...]:
    wide: tuple[Any, ...] = pytree.tree_map_only(
        T, lambda t: t.float() if t.is_floating_point() else t, args
    )
    return wide
