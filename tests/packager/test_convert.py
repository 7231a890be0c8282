# SPDX-License-Identifier: Apache-2.0
"""Whole segments as networks: what no converter decides alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.packager.converters import engine
from trtpack.capture import capture
from trtpack.convert import (
    ConversionError,
    ConvertedSegment,
    Passed,
    concrete_shape,
    convert,
    node_of,
)
from trtpack.convert import signature as signature_of
from trtpack.converters import find, registry
from trtpack.lowering import Lowered, lower
from trtpack.options import SizeRange
from trtpack.target import find_target
from trtpack_runtime import reference
from trtpack_runtime.errors import InternalError

aten = torch.ops.aten
RTX = find_target("rtx-4090")


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.arange(3.0))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def lowered(function: Callable[..., Any], x: Tensor, **kwargs: Any) -> Lowered:
    return lower(capture(Function(function), (x,), **kwargs))


def segment(function: Callable[..., Any], x: Tensor) -> ConvertedSegment:
    made = lowered(function, x)
    return convert(made.captured.graph_module, RTX, made.captured.ranges, made.recipes)


def test_a_uint8_made_inside_is_read_as_the_numbers_it_was_made_of() -> None:
    def function(_: Any, x: Tensor) -> Any:
        mask = (x > 0).to(torch.uint8)
        twice = mask + mask + 255
        return twice.float() * x, twice

    x = torch.tensor([-1.0, 2.0, 3.0])
    made = segment(function, x)
    inside = {name for layer in made.network.layers for name in layer.operand_names()}
    assert all(made.network.tensors[n].dtype != "UINT8" for n in inside & set(made.network.tensors))
    engine.build(made)
    answers = reference.evaluate(made.network, made.constants, {"x": x})
    for have, want in zip(answers, function(None, x), strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=0)


def test_outputs_no_layer_computes_are_told_apart() -> None:
    made = segment(lambda m, x: (x, m.weight, x + 1, x + 1), torch.zeros(3))
    passed = [o for o in made.outputs if isinstance(o, Passed)]
    assert [(p.kind, p.name) for p in passed[:2]] == [("input", "x"), ("constant", "weight")]
    assert [p.kind for p in passed[2:]] == ["output"]
    assert made.network.outputs == (passed[2].name,)


def test_a_reason_found_while_converting_names_the_node() -> None:
    def function(_: Any, x: Tensor) -> Tensor:
        return torch.ops.aten.native_dropout(x, 0.5, False)[1]

    with pytest.raises(ConversionError) as caught:
        segment(function, torch.ones(3))
    refusal = caught.value.refusal
    assert (refusal.op, refusal.node) == ("aten.native_dropout.default", "native_dropout")
    assert refusal.reason == "TensorRT does not compute its output 1"
    assert "test_convert.py:" in refusal.where


def test_a_converter_that_answers_another_type_is_a_bug_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = find(aten.relu.default)
    assert right is not None
    wrong = replace(right, function=lambda ctx, self: ctx.cast(self, "HALF"))
    monkeypatch.setitem(registry._REGISTRY, right.name, wrong)
    with pytest.raises(InternalError, match=r"aten\.relu\.default answers .*HALF"):
        segment(lambda _, x: x.relu(), torch.ones(3))


def test_dynamic_inputs_have_a_profile() -> None:
    made = lowered(
        lambda _, x: x + 1,
        torch.ones(4, 3),
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=2, max=8)}},
        ranges={(0, 0): SizeRange(2, 4, 8)},
    )
    graph, ranges = made.captured.graph_module, made.captured.ranges
    inputs, profile = signature_of(graph, ranges)
    assert [t.name for t in inputs] == ["x"]
    assert profile is not None
    assert profile.shapes["x"] == ((2, 3), (4, 3), (8, 3))
    (x,) = graph.graph.find_nodes(op="placeholder")
    doubled = [s * 2 for s in x.meta["val"].shape]
    assert concrete_shape(doubled, ranges, 2) == (16, 6)


def test_static_inputs_have_none() -> None:
    _, profile = signature_of(lowered(lambda _, x: x + 1, torch.ones(4)).captured.graph_module, {})
    assert profile is None


def test_every_layer_tells_the_node_it_was_made_for() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x).softmax(-1) + self.block(x * 2)

    module = lower(capture(Nested(), (torch.randn(2, 4),))).captured.graph_module
    network = convert(module, find_target("orin@jetpack-6.0"), {}).network
    nodes = {node.name for node in module.graph.nodes if node.op == "call_function"}
    found = {node_of(layer.name) for layer in network.layers}
    assert found <= nodes
    assert len(network.layers) > len(found) > 4
    assert any("block.0/" in layer.name for layer in network.layers)
