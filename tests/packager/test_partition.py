# SPDX-License-Identifier: Apache-2.0
"""Where a graph is cut, why, and that the pieces put together are the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from trtpack.capture import Captured, capture
from trtpack.converters.refusals import (
    NO_LAYER_SIZED_BY_DATA,
    NOT_SIZED_BY_DATA_BEFORE_10,
    SIZED_BY_DATA,
)
from trtpack.lowering import lower
from trtpack.partition import Plan, partition
from trtpack.target import find_target

RTX = find_target("rtx-4090")
CPU = find_target("cpu")


class Sandwich(nn.Module):
    """PyTorch work between two parts TensorRT can do."""

    def __init__(self, middle: Any = torch.unique) -> None:
        super().__init__()
        self.before, self.after, self.middle = nn.Linear(4, 4), nn.Linear(4, 4), middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x).relu()
        return self.after(y + self.middle(y).sum())


def lowered(model: nn.Module, *args: torch.Tensor, **kwargs: Any) -> Captured:
    return lower(capture(model.eval(), args, **kwargs)).captured


def plan(model: nn.Module, *args: torch.Tensor, **kwargs: Any) -> Plan:
    return partition(lowered(model, *args).graph_module, RTX, **kwargs)


def kinds(made: Plan) -> list[str]:
    return [segment.kind for segment in made.segments]


def test_a_supported_model_is_one_segment() -> None:
    made = plan(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4), min_block_size=5)
    assert kinds(made) == ["tensorrt"]
    assert made.refusals == ()


def test_an_unsupported_operator_is_one_torch_segment_between_two_engines() -> None:
    made = plan(Sandwich(), torch.ones(2, 4))
    assert kinds(made) == ["tensorrt", "torch", "tensorrt"]
    assert "aten._unique2.default" in made.segments[1].operators
    reasons = {r.op: r.reason for r in made.refusals}
    assert reasons["aten._unique2.default"] == SIZED_BY_DATA
    assert all("test_partition.py:" in r.where for r in made.refusals)


@pytest.mark.parametrize(
    ("middle", "operator", "reason"),
    [
        (lambda y: y[y > 0], "aten.index.Tensor", NO_LAYER_SIZED_BY_DATA),
        (lambda y: y.masked_select(y > 0), "aten.masked_select.default", NO_LAYER_SIZED_BY_DATA),
        (lambda y: y.nonzero(), "aten.nonzero.default", NO_LAYER_SIZED_BY_DATA),
        (lambda y: y.unique(dim=0), "aten.unique_dim.default", SIZED_BY_DATA),
        (lambda y: y.unique_consecutive(), "aten.unique_consecutive.default", SIZED_BY_DATA),
    ],
    ids=["mask", "masked_select", "nonzero", "unique_dim", "unique_consecutive"],
)
def test_what_is_sized_by_data_runs_in_pytorch_between_two_engines(
    middle: Any, operator: str, reason: str
) -> None:
    made = plan(Sandwich(middle), torch.ones(2, 4))
    assert kinds(made) == ["tensorrt", "torch", "tensorrt"]
    assert operator in made.segments[1].operators
    assert {r.reason for r in made.refusals if r.op == operator} == {reason}
    assert "depends on data" in reason
    assert "in PyTorch between engines" in reason


@pytest.mark.parametrize(
    "middle", [lambda y: y[y > 0], lambda y: y.masked_select(y > 0) * 2, lambda y: y.nonzero()]
)
def test_what_is_sized_by_data_is_within_the_engine_where_tensorrt_has_the_layer(
    middle: Any,
) -> None:
    captured = lowered(Sandwich(middle), torch.ones(2, 4))
    made = partition(captured.graph_module, find_target("orin@jetpack-6.2"))
    assert kinds(made) == ["tensorrt"]
    assert made.refusals == ()


def test_before_tensorrt_10_what_is_sized_by_data_runs_in_pytorch() -> None:
    captured = lowered(Sandwich(lambda y: y[y > 0]), torch.ones(2, 4))
    made = partition(captured.graph_module, find_target("orin@jetpack-6.0"))
    assert kinds(made) == ["tensorrt", "torch", "tensorrt"]
    (reason,) = (r.reason for r in made.refusals if r.op == "aten.index.Tensor")
    assert reason == NOT_SIZED_BY_DATA_BEFORE_10


def test_a_branch_whose_data_tells_a_size_is_no_engine() -> None:
    class Choosing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            some, every = lambda x: x[x > 0].sum()[None], lambda x: x.sum()[None]
            return torch.cond(x.sum() > 0, some, every, (x,))

    captured = lowered(Choosing(), torch.ones(2, 4))
    made = partition(captured.graph_module, find_target("orin@jetpack-6.2"))
    (refusal,) = made.refusals
    assert "its branch has aten.index.Tensor, whose data tells the size" in refusal.reason


def test_what_needs_a_size_that_data_in_another_segment_tells_is_no_engine() -> None:
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            some = x[x > 0].relu()
            return (some + torch.unique(some).sum()).exp()

    captured = lowered(Cut(), torch.ones(2, 4))
    made = partition(captured.graph_module, find_target("orin@jetpack-6.2"))
    assert kinds(made) == ["tensorrt", "torch"]
    reasons = {r.op: r.reason for r in made.refusals}
    assert "depends on data outside of its segment" in reasons["aten.exp.default"]
    assert "aten.index.Tensor" in made.segments[0].operators


def test_complex_numbers_are_refused_in_words() -> None:
    made = plan(Sandwich(lambda y: torch.fft.rfft(y).abs()), torch.ones(2, 4))
    reasons = {r.reason for r in made.refusals}
    assert "TensorRT has no type complex64" in reasons


def test_sizes_from_data_are_refused_in_words() -> None:
    made = plan(Sandwich(lambda y: torch.unique(y) * 2), torch.ones(2, 4))
    reasons = {r.op: r.reason for r in made.refusals}
    assert "depends on data" in reasons["aten.mul.Tensor"]


@pytest.mark.parametrize("operator", ["aten.relu", "aten.relu.default"])
def test_operators_can_be_forced_to_pytorch(operator: str) -> None:
    made = plan(Sandwich(torch.neg), torch.ones(2, 4), torch_ops=(operator,))
    assert kinds(made) == ["tensorrt", "torch", "tensorrt"]
    assert made.segments[1].operators == {"aten.relu.default": 1}
    assert [r.reason for r in made.refusals] == ["kept in PyTorch by --torch-op"]


def test_small_segments_join_pytorch_where_the_graph_splits() -> None:
    made = plan(Sandwich(), torch.ones(2, 4), min_block_size=3)
    assert kinds(made) == ["torch"]
    assert {r.reason for r in made.refusals if "linear" in r.op} == {
        "its segment of 2 operators is below --min-block-size"
    }


def test_what_a_later_stage_refused_goes_to_pytorch() -> None:
    made = plan(Sandwich(torch.neg), torch.ones(2, 4), refused={"relu": "the builder said no"})
    assert [r.reason for r in made.refusals] == ["the builder said no"]
    assert kinds(made) == ["tensorrt", "torch", "tensorrt"]


def test_a_target_without_tensorrt_is_one_torch_segment() -> None:
    made = partition(lowered(Sandwich(), torch.ones(2, 4)).graph_module, CPU)
    assert kinds(made) == ["torch"]
    assert made.refusals == ()


def test_independent_unsupported_work_shares_one_segment() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left = torch.unique(self.a(x)).sum()
            right = torch.unique(self.b(x)).sum()
            return x * left + x.exp() * right

    made = plan(Two(), torch.ones(2, 4))
    assert kinds(made).count("torch") == 1


def test_every_operator_is_in_exactly_one_segment() -> None:
    captured = lowered(Sandwich(), torch.ones(2, 4))
    made = partition(captured.graph_module, RTX)
    placed = [
        node.name
        for segment in made.segments
        for node in segment.graph_module.graph.nodes
        if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor | tuple)
    ]
    wanted = [
        node.name
        for node in captured.graph_module.graph.nodes
        if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor | tuple)
    ]
    assert sorted(placed) == sorted(wanted)


def test_only_tensors_cross_borders_and_a_missing_size_brings_its_tensor() -> None:
    class Sized(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = torch.fft.rfft(x).abs().sum()  # no dim of x is left
            return total.exp().expand(x.shape[0], 2)

    captured = lowered(
        Sized(), torch.ones(3, 4), dynamic_shapes={"x": {0: Dim("batch", min=2, max=8)}}
    )
    made = partition(captured.graph_module, RTX, torch_ops=("aten.sum",))
    last = made.segments[-1]
    assert last.kind == "tensorrt"
    assert "x" in last.inputs


def test_a_size_that_only_a_type_without_tensorrt_tells_stays_in_pytorch() -> None:
    class Sized(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.ones(x.shape[0], 3) + y.relu()

    tensors = (torch.zeros(4, 3, dtype=torch.bfloat16), torch.zeros(3))
    captured = lower(
        capture(Sized(), tensors, dynamic_shapes=({0: Dim("n", max=8)}, None))
    ).captured
    plan = partition(captured.graph_module, find_target("orin@jetpack-6.0"))
    assert [(r.op, r.reason.split(": ")[1]) for r in plan.refusals] == [
        ("aten.full.default", "TensorRT has bfloat16 from 10.0 on")
    ]
    assert [(s.kind, s.inputs) for s in plan.segments] == [
        ("torch", ("x",)),
        ("tensorrt", ("y", "full")),
    ]
    assert not partition(captured.graph_module, find_target("orin@jetpack-6.2")).refusals
