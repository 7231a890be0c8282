# SPDX-License-Identifier: Apache-2.0
"""Any division runs every operator once, after what it reads, and computes what the model does."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trtpack import partition as partitioning
from trtpack.capture import Captured, capture
from trtpack.costs import machine_of
from trtpack.lowering import lower
from trtpack.partition import Plan, partition
from trtpack.target import find_target

RTX = find_target("rtx-4090")
CPU = find_target("cpu")

UNARY = (torch.relu, torch.exp, lambda x: x.transpose(0, 1), lambda x: x.softmax(-1), torch.sin)
BINARY = (torch.add, torch.mul, torch.matmul, lambda x, y: torch.cat((x, y))[2:6])


class Woven(nn.Module):
    """Operators in a random order, each reading results of any before it; all are square."""

    def __init__(self, steps: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16).reshape(4, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [x, self.weight.sigmoid()]
        for choice, one, other in self.steps:
            first, second = values[one % len(values)], values[other % len(values)]
            if choice < len(UNARY):
                made = UNARY[choice](first)
            elif choice < len(UNARY) + len(BINARY):
                made = BINARY[choice - len(UNARY)](first, second)
            else:
                made = torch.stack(first.split(1)[::-1]).reshape(4, 4)
            values.append(made / made.abs().max().clamp(min=1))
        return values[-1], values[-2].sum()


def graph(model: nn.Module, *args: torch.Tensor, **kwargs: Any) -> Captured:
    return lower(capture(model.eval(), args, **kwargs)).captured


def placed(plan: Plan) -> list[str]:
    return [
        node.name
        for segment in plan.segments
        for node in segment.graph_module.graph.nodes
        if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor)
    ]


def run(captured: Captured, plan: Plan, x: torch.Tensor) -> list[torch.Tensor]:
    """The plan's segments one after the other, as a program of a bundle."""
    values: dict[str, Any] = {captured.inputs[0] or "": x}
    for segment in plan.segments:
        missing = [name for name in segment.inputs if name not in values]
        assert not missing, "a segment runs before what it reads"
        results = segment.graph_module(*(values[name] for name in segment.inputs))
        values |= zip(segment.outputs, results, strict=True)
    for name, stored in plan.constants.items():
        values[name] = captured.graph_module.get_buffer(stored)
    return [values[name] for name in plan.outputs]


@functools.cache
def woven(seed: int) -> Captured:
    chance = random.Random(seed)
    steps = [(chance.randrange(10), chance.randrange(99), chance.randrange(99)) for _ in range(24)]
    return graph(Woven(steps), torch.zeros(4, 4))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_division_runs_each_operator_once_in_order_and_computes_what_the_model_does(
    data: st.DataObject,
) -> None:
    captured = woven(data.draw(st.integers(0, 2)))
    names = [n.name for n in captured.graph_module.graph.nodes if n.op == "call_function"]
    refused = data.draw(st.sets(st.sampled_from(names), max_size=8))
    target = data.draw(st.sampled_from((RTX, CPU)))
    dear = data.draw(st.sampled_from((0.0, 1.0, 1e3)))  # engines gain, may gain, never gain
    machine = replace(machine_of(target), engine_us=20 * dear, compiled_us=9 * dear)
    with mock.patch.object(partitioning, "machine_of", return_value=machine):
        plan = partition(
            captured.graph_module,
            target,
            refused=dict.fromkeys(refused, "drawn"),
            min_block_size=data.draw(st.sampled_from((None, None, 1, 3))),
            divided=True,
        )
    wanted = [
        node.name
        for node in captured.graph_module.graph.nodes
        if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor)
    ]
    assert sorted(placed(plan)) == sorted(wanted)
    x = torch.linspace(-2, 2, 16).reshape(4, 4)
    with torch.no_grad():
        for got, expected in zip(run(captured, plan, x), captured.graph_module(x), strict=True):
            torch.testing.assert_close(got, expected)
