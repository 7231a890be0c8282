# SPDX-License-Identifier: Apache-2.0
"""What a choice by cost chooses, and that a user's own choices go before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from trtpack.capture import Captured, capture
from trtpack.convert import node_of
from trtpack.costs import choose, kernels_of, machine_of, works
from trtpack.errors import ConfigError, UnsupportedOpError
from trtpack.lowering import Lowered, lower
from trtpack.options import Options, SizeRange
from trtpack.partition import Plan, partition
from trtpack.partition_checks import check_partition, check_places
from trtpack.planning import plan
from trtpack.target import find_target

ORIN, CPU = find_target("orin"), find_target("cpu")


class Islands(nn.Module):
    """Something TensorRT lacks, an operator it has, something it lacks, then much it has."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.much = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4)), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.unique(x).sum()
        island = first.exp()
        second = torch.unique(island).sum()
        return self.much(x * second)


def graph(model: nn.Module, *args: torch.Tensor) -> Captured:
    return lower(capture(model.eval(), args)).captured


def by_cost(captured: Captured, target: Any = ORIN, **settings: Any) -> Plan:
    return partition(
        captured.graph_module, target, min_block_size=None, ranges=captured.ranges, **settings
    )


@pytest.fixture(scope="module")
def islands() -> Captured:
    return graph(Islands(), torch.zeros(1, 64, 112, 112))


def test_an_island_joins_pytorch_and_what_gains_is_an_engine(islands: Captured) -> None:
    made = by_cost(islands)
    assert [s.kind for s in made.segments] == ["torch", "tensorrt"]
    assert "aten.exp.default" in made.segments[0].operators
    reasons = {r.op: r.reason for r in made.refusals}
    assert "predicted to be faster" in reasons["aten.exp.default"]
    assert made.prediction is not None
    assert made.prediction.us < min(made.prediction.most_us, made.prediction.none_us)
    assert made.prediction.us == pytest.approx(sum(s.predicted_us or 0 for s in made.segments))


def test_an_operator_wanted_on_an_engine_is_there_whatever_that_costs(islands: Captured) -> None:
    made = by_cost(islands, trt_ops=("aten.exp",))
    assert [s.kind for s in made.segments] == ["torch", "tensorrt", "torch", "tensorrt"]
    small = partition(islands.graph_module, ORIN, trt_ops=("aten.exp",), min_block_size=5)
    assert "aten.exp.default" in [
        op for s in small.segments if s.kind == "tensorrt" for op in s.operators
    ]


def test_a_model_that_splits_where_every_part_is_small_has_no_engine() -> None:
    class Small(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.unique(x.relu()).sum().exp()

    made = by_cost(graph(Small(), torch.zeros(4)))
    assert [s.kind for s in made.segments] == ["torch"]


def test_a_segment_of_parts_that_each_gain_little_is_given_up_as_a_whole() -> None:
    class Sides(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            sides = torch.stack([torch.sort(v.sin()).values for v in (x, y)])
            return (sides.sum() + z).sin().exp().tanh()

    captured = graph(Sides(), torch.zeros(4), torch.zeros(4), torch.zeros(512, 512))
    forced = ("aten.sort", "aten.stack", "aten.sum")
    made = by_cost(captured, CPU, torch_ops=forced, divided=True)
    assert [s.compiled for s in made.segments] == [False, True]


def test_next_to_nothing_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Linear(4096, 4096) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).sin().tanh().exp().relu())

    captured = graph(Products(), torch.zeros(1, 4096))

    def compiled() -> list[bool]:
        made = by_cost(captured, CPU, torch_ops=("aten.relu",), divided=True)
        return [segment.compiled for segment in made.segments]

    assert compiled() == [False]
    monkeypatch.setitem(choose.__globals__, "_WORTH", 0.0)
    assert compiled() == [True, False]


def test_a_convolution_that_is_laid_out_for_little_is_worth_an_engine() -> None:
    class Convolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(32, 32, 3), nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(x).relu().mean((1, 2, 3), keepdim=True))

    def compiled(size: int) -> list[bool]:
        captured = graph(Convolved(), torch.zeros(1, 32, size, size))
        made = by_cost(captured, CPU, torch_ops=("aten.relu",), divided=True)
        return [segment.compiled for segment in made.segments]

    assert compiled(64)[0]
    assert not compiled(16)[0]  # 9,216 weights, 14,464 numbers


def test_a_model_that_engines_take_whole_is_one_however_small() -> None:
    made = by_cost(graph(nn.ReLU(), torch.zeros(1)))
    assert [s.kind for s in made.segments] == ["tensorrt"]
    assert made.prediction is None


def test_a_module_is_kept_in_pytorch_by_its_path(islands: Captured) -> None:
    made = by_cost(islands, torch_modules=(r"much\.[01]",))
    kept = [r for r in made.refusals if r.reason == "kept in PyTorch by --torch-module"]
    assert [(r.op, r.where.split(" ")[0]) for r in kept] == [
        ("aten.convolution.default", "much.0"),
        ("aten.convolution.default", "much.1"),
    ]
    whole = by_cost(islands, torch_modules=("much",))
    assert len([r for r in whole.refusals if "--torch-module" in r.reason]) == 5


def test_what_is_forced_to_pytorch_runs_uncompiled_between_compiled_segments() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin().exp().tanh().relu().sin().exp().tanh()

    captured = graph(Chain(), torch.zeros(256, 256))
    made = by_cost(captured, CPU, torch_ops=("aten.relu",), divided=True)
    assert [(s.kind, s.compiled) for s in made.segments] == [
        ("torch", True),
        ("torch", False),
        ("torch", True),
    ]
    assert len(by_cost(captured, CPU, torch_ops=("aten.relu",)).segments) == 1


def test_unsupported_work_moves_so_that_segments_merge() -> None:
    class Apart(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            one = x.sin().exp().tanh()
            first = one.relu()
            two = x.cos().exp().tanh()
            return (first + two).sin(), two.relu()

    captured = graph(Apart(), torch.zeros(256, 256))
    made = by_cost(captured, CPU, torch_ops=("aten.relu",), divided=True)
    assert [s.compiled for s in made.segments] == [True, False, True]
    assert made.segments[1].operators == {"aten.relu.default": 2}


def test_work_is_that_of_the_optimum_sizes() -> None:
    batch = torch.export.Dim("n", max=8)
    exported = capture(nn.Linear(16, 32), (torch.zeros(2, 16),), dynamic_shapes=({0: batch},))
    captured = lower(exported).captured
    (symbol,) = captured.ranges
    found = works(captured.graph_module, {symbol: SizeRange(1, 4, 8)})
    (work,) = found.values()
    assert (work.nature, work.flops, work.writes) == ("product", 2 * 4 * 16 * 32, 4 * 32 * 4)
    assert sorted(work.reads.values()) == [32 * 4, 4 * 16 * 4, 16 * 32 * 4]


@pytest.mark.parametrize(
    ("called", "nature", "flops"),
    [
        (lambda x: nn.functional.conv2d(x, x), "product", 2 * (2 * 2) * (2 * 8 * 8)),
        (lambda x: torch.ops.prims.convert_element_type.default(x, torch.half), "pointwise", 256),
    ],
)
def test_work_of_one_tensor(called: Any, nature: str, flops: int) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return called(x)

    captured = capture(Model(), (torch.zeros(2, 2, 8, 8),))
    (work,) = works(captured.graph_module, {}).values()
    assert (work.nature, work.flops) == (nature, flops)


def test_every_target_has_rates() -> None:
    for name in ("cpu", "orin", "t4", "h100", "gh200"):
        machine = machine_of(find_target(name))
        assert machine.bytes_per_us > 0
        assert machine.flops_per_us <= machine.half_flops_per_us


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"trt_ops": ("aten.add",), "torch_ops": ("aten.add.Tensor",)}, "contradict each other"),
        ({"require_full": True, "torch_ops": ("aten.add",)}, "--require-full and --torch-op"),
        ({"require_full": True, "torch_modules": ("a",)}, "--require-full and --torch-module"),
        ({"torch_modules": ("a(",)}, "--torch-module 'a(' is no regular expression"),
        ({"measure_partition": True, "min_block_size": 5}, "--min-block-size wants one"),
        ({"measure_partition": True, "dry_run": True}, "--dry-run builds none"),
    ],
)
def test_contradictions_are_refused(settings: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_partition(Options(("orin",), **settings))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"torch_ops": ("aten.expp",)}, "did you mean --torch-op aten.exp?"),
        ({"trt_ops": ("aten.expp",)}, "did you mean --trt-op aten.exp?"),
        ({"torch_modules": ("muc",)}, "did you mean --torch-module much?"),
    ],
)
def test_what_a_model_does_not_have_is_refused(settings: Any, hint: str) -> None:
    lowered = lower(capture(Islands(1).eval(), (torch.zeros(1, 1, 4, 4),)))
    with pytest.raises(ConfigError) as caught:
        check_places([lowered], Options(("orin",), **settings))
    assert caught.value.hint == hint


def test_a_model_that_is_not_one_engine_fails_where_that_is_required() -> None:
    lowered = lower(capture(Islands(1).eval(), (torch.zeros(1, 1, 4, 4),)))
    with pytest.raises(UnsupportedOpError, match=r"aten\._unique2") as caught:
        plan(lowered, ORIN, Options(("orin",), require_full=True))
    assert "--require-full" in str(caught.value.hint)
    with pytest.raises(UnsupportedOpError, match=r"aten\._unique2") as caught:
        plan(lowered, ORIN, Options(("orin",), trt_ops=("aten._unique2",)))
    assert "--trt-op" in str(caught.value.hint)


def _scattered() -> Captured:
    class Scattered(nn.Module):
        def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = torch.unique(x[at].tanh()).sum() + torch.zeros_like(x).index_add(0, at, x)
            return x

    return graph(Scattered(), torch.zeros(64, 64), torch.zeros(64, dtype=torch.long))


def test_where_pytorch_is_compiled_here_it_is_predicted_as_that() -> None:
    captured = _scattered()
    there = by_cost(captured)
    here = by_cost(captured, replace(ORIN, compiles_here=True))
    assert there.prediction is not None
    assert here.prediction is not None
    assert here.prediction.none_us < there.prediction.none_us
    eager = plan(
        Lowered(captured, {}, {}),
        replace(ORIN, compiles_here=True),
        Options(("orin",), eager=True),
    )
    assert eager.plan.prediction is not None
    assert eager.plan.prediction.none_us == pytest.approx(there.prediction.none_us)


def test_kernels_are_counted_once_they_are_known() -> None:
    captured = _scattered()
    planned = plan(Lowered(captured, {}, {}), ORIN, Options(("orin",)))
    one = by_cost(captured)
    assert one.prediction is not None
    assert planned.plan.prediction is not None
    assert planned.plan.prediction.most_us > one.prediction.most_us


def test_kernels_of_a_network() -> None:
    class Indexed(nn.Module):
        def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            moved = x[at].transpose(0, 1).reshape(-1)
            return moved.index_add(0, at, torch.ones_like(moved)[: at.shape[0]]).relu()

    captured = graph(Indexed(), torch.zeros(8, 8), torch.zeros(8, dtype=torch.long))
    planned = plan(Lowered(captured, {}, {}), ORIN, Options(("orin",)), min_block_size=1)
    (network,) = (segment.network for segment in planned.converted.values())
    counts = kernels_of(network.layers, node_of)
    assert counts["index_add"] == 2  # which row each goes to, and the product with that
    assert counts["index"] >= 1
    assert "relu" not in counts
    assert "reshape" not in counts


def test_one_operator_alone_is_not_compiled() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).sin().cos())

    captured = graph(Alone(), torch.zeros(1, 64, 224, 224))
    for ops, compiled in ((("aten.sin",), False), (("aten.sin", "aten.cos"), True)):
        for least in (None, 1):
            made = partition(captured.graph_module, ORIN, torch_ops=ops, min_block_size=least)
            middle = next(s for s in made.segments if s.kind == "torch")
            assert middle.compiled is compiled, (ops, least)


def test_one_operator_alone_is_left_to_pytorch_where_aotinductor_serves_a_gpu() -> None:
    """A convolution takes PyTorch what it takes AOTInductor, but for the segment's call."""

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).sin()).relu()

    captured = graph(Between(), torch.zeros(1, 16, 32, 32))
    settings = {"target": find_target("h200", "inductor"), "divided": True}
    made = by_cost(captured, torch_ops=("aten.sin",), **settings)
    assert [s.operators.total() for s in made.segments] == [2, 2]
    assert [s.compiled for s in made.segments] == [False, True]
    wanted = by_cost(captured, torch_ops=("aten.sin",), trt_ops=("aten.convolution",), **settings)
    assert [s.compiled for s in wanted.segments] == [True, False, True]
