# SPDX-License-Identifier: Apache-2.0
"""float64 is computed in float32 where TensorRT is to take it, and only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trtpack import pipeline
from trtpack.capture import capture
from trtpack.convert import convert
from trtpack.lowering import Lowered, lower
from trtpack.options import Options
from trtpack.partition import Plan, partition
from trtpack.target import find_target
from trtpack_runtime import recipes, reference

T = torch.Tensor
RTX = find_target("rtx-4090")


class Model(nn.Module):
    """A function of its inputs and of a float64 buffer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("table", torch.linspace(0, 1, 4, dtype=torch.float64))

    def forward(self, *inputs: T) -> Any:
        return self.function(self.table, *inputs)


def lowered(function: Callable[..., Any], *inputs: T, **more: Any) -> Lowered:
    return lower(capture(Model(function), inputs), **more)


def planned(made: Lowered) -> Plan:
    return partition(made.captured.graph_module, RTX)


def test_what_lies_between_is_one_engine() -> None:
    def function(table: T, x: T) -> T:
        wide = x.to(torch.float64) * table + torch.arange(4, dtype=torch.float64)
        return (wide.sum(-1, dtype=torch.float64) + 0.5).to(torch.float32)

    x = torch.randn(2, 4)
    made = lowered(function, x)
    assert made.effects["narrow_doubles"] == 6
    (segment,) = planned(made).segments
    assert segment.kind == "tensorrt"
    converted = convert(segment.graph_module, RTX, {}, made.recipes)
    (answer,) = reference.evaluate(converted.network, converted.constants, [x])
    torch.testing.assert_close(answer, function(Model(function).table, x))
    parameters = dict(made.captured.graph_module.named_buffers())
    for constant in converted.network.constants.values():
        if constant.recipe:
            replayed = recipes.replay(dict(constant.recipe), parameters)
            torch.testing.assert_close(replayed, converted.constants[constant.data])


def test_inputs_and_outputs_keep_their_type() -> None:
    x = torch.randn(2, 4, dtype=torch.float64)
    made = lowered(lambda table, x: ((x + table).relu().exp(), x), x)
    segments = planned(made).segments
    assert [s.kind for s in segments] == ["torch", "tensorrt", "torch"]
    (placeholder,) = made.captured.graph_module.graph.find_nodes(op="placeholder")
    (returned,) = made.captured.graph_module.graph.output_node().args
    assert placeholder.meta["val"].dtype == torch.float64
    assert [n.meta["val"].dtype for n in returned] == [torch.float64, torch.float64]
    assert returned[1] is placeholder


@pytest.mark.parametrize(
    "function",
    [
        lambda table, x: x + table * 1e300,
        lambda table, x: (x.double() * 1e39).float(),
        lambda table, x: (x + table).view(torch.int64),
        lambda table, x: torch.fft.fft(x + table).real,
    ],
    ids=["beyond float32", "a number beyond float32", "bits", "complex"],
)
def test_what_float32_cannot_hold_stays_as_it_is(function: Callable[..., Any]) -> None:
    made = lowered(function, torch.randn(4))
    assert made.effects["narrow_doubles"] == 0
    reasons = {refusal.reason for refusal in planned(made).refusals}
    assert "TensorRT has no type float64" in reasons


def test_strict_dtypes_keep_them_in_pytorch() -> None:
    made = lowered(lambda table, x: (x + table).float(), torch.randn(4), keep_doubles=True)
    assert "narrow_doubles" not in made.effects
    assert {r.reason for r in planned(made).refusals} == {"TensorRT has no type float64"}


@pytest.mark.parametrize(
    ("target", "strict", "noted"),
    [("rtx-4090", False, True), ("rtx-4090", True, False), ("cpu", False, False)],
)
def test_the_report_says_so(target: str, strict: bool, noted: bool) -> None:
    options = Options(targets=(target,), dry_run=True, strict_dtypes=strict)
    model = (Model(lambda table, x: (x + table).float()), torch.randn(4))
    report = pipeline.build(model, options)
    assert any("compute in float32 instead of float64" in note for note in report.notes) == noted


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int8", "int16", "int32", "int64"])
def test_whole_inputs_are_taken_or_refused_in_words(dtype: str) -> None:
    x = torch.ones(2, 4).to(getattr(torch, dtype))
    made = planned(lowered(lambda table, x: x.float().relu() + 1, x))
    reasons = {r.reason for r in made.refusals if "_to_copy" in r.op}
    if dtype == "int16":
        assert reasons == {"TensorRT has no type int16"}
    else:
        assert [s.kind for s in made.segments] == ["tensorrt"]
        assert not made.refusals
