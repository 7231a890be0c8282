# SPDX-License-Identifier: Apache-2.0
"""A model in other types: which operators, how many casts, and that it computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.packager.precision.models import (
    Convolutional,
    alive,
    answer,
    attending,
    casts,
    convolutional,
    distance,
    loud,
    lowered,
    precisions,
)
from trtpack.capture import returned
from trtpack.convert import convert
from trtpack.errors import ConfigError
from trtpack.lowering import lower
from trtpack.options import PrecisionName
from trtpack.partition import partition
from trtpack.precision.plan import Request
from trtpack.target import find_target
from trtpack_runtime import recipes, reference

MODELS = {"convolutional": convolutional, "attending": attending, "loud": loud}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["mixed", "mixed-bf16", "fp32", "tf32"])
def test_it_computes_what_the_model_does(name: str, precision: PrecisionName) -> None:
    model = MODELS[name]()
    found = distance(lowered(model, precision), model)
    most = {"mixed": 3e-3, "mixed-bf16": 2e-2}.get(precision, 1e-6)
    assert found.rel_l2 < most
    assert (found.rel_l2 > 1e-5) == precision.startswith("mixed")


@pytest.mark.parametrize("name", ["convolutional", "attending"])
def test_the_evaluator_agrees_with_pytorch(name: str) -> None:
    model = MODELS[name]()
    made = lowered(model, "mixed")
    target = find_target("rtx-4090")
    (segment,) = partition(made.captured.graph_module, target).segments
    converted = convert(segment.graph_module, target, {}, made.recipes)
    (got,) = reference.evaluate(converted.network, converted.constants, list(model[1]))
    wanted = answer(made, model[1])
    assert got.dtype == torch.float32
    assert float((got - wanted).norm() / wanted.norm()) < 2e-3
    weights = dict(model[0].named_parameters()) | dict(model[0].named_buffers())
    for constant in converted.network.constants.values():
        if constant.recipe and set(recipes.sources(constant.recipe)) <= weights.keys():
            replayed = recipes.replay(dict(constant.recipe), weights)
            stored = converted.constants[constant.data]
            torch.testing.assert_close(replayed, stored, rtol=1e-3, atol=1e-5)


def test_a_chain_of_products_is_cast_at_its_ends() -> None:
    made = lowered(convolutional(), "mixed")
    graph = made.captured.graph_module
    assert made.plan.casts == 2
    first, last = casts(graph)
    assert first.args[0] in graph.graph.find_nodes(op="placeholder")
    assert list(last.users) == [graph.graph.output_node()]
    assert set(precisions(made).values()) == {"fp16"}


def test_constants_are_cast_once_and_follow_new_weights() -> None:
    module, args = convolutional()
    made = lowered((module, args), "mixed")
    constants = [n for n in made.captured.graph_module.graph.nodes if n.op == "get_attr"]
    names = [str(n.target) for n in constants]
    assert len(names) == len(set(names)) == 6
    assert all(name.endswith("|float16") for name in names)
    weights = dict(module.named_parameters()) | dict(module.named_buffers())
    for name in names:
        recipe = made.recipes[name]
        assert recipe["op"] == "aten._to_copy.default"
        assert recipes.replay(recipe, weights).dtype == torch.float16


def test_sensitive_operators_stay_wide() -> None:
    made = lowered(attending(), "mixed")
    found = precisions(made)
    assert found["layer_norm"] == found["layer_norm_1"] == "fp32"
    assert found["softmax" if "softmax" in found else "_softmax"] == "fp32"
    assert found["scaled_dot_product_attention"] == "fp16"
    why = {row.node: row.why for row in made.plan.rows}
    assert why["layer_norm"] == "a norm: statistics over many numbers"


def test_masks_of_the_lowest_number_hide_no_row_as_nan() -> None:
    module, (x, mask) = attending()
    mask = mask.clone()
    mask[1] = 0  # a row that sees nothing at all
    model = module, (x, mask)
    for precision in ("mixed", "fp16"):
        made = lowered(model, precision)
        assert bool(answer(made, model[1]).isfinite().all())
        assert made.plan.findings == ()


def test_inputs_outputs_and_whole_numbers_keep_their_types() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.total = nn.Linear(4, 4), nn.Buffer(torch.zeros(4))

        def forward(self, x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.linear(x)
            self.total.add_(y.sum(0))
            return y, at + 1, y > 0, self.total + 0

    module = alive(Counting(), torch.randn(2, 4), torch.arange(3))
    made = lowered(module, "fp16")
    types = [n.meta["val"].dtype for n in returned(made.captured.graph_module.graph)]
    wide = torch.float32
    assert types == [wide, wide, torch.int64, torch.bool, wide]


@pytest.mark.parametrize("again", ["mixed", "mixed-bf16"])
def test_a_model_that_is_half_already_stays_as_it_is(again: PrecisionName) -> None:
    model = attending()
    made = lowered(model, "mixed")
    twice = lower(made.captured, precision=Request(again))
    assert twice.effects["autocast"] == 0
    assert precisions(twice) == precisions(made)
    half = Convolutional().eval().half()
    third = lowered((half, (torch.randn(1, 3, 8, 8).half(),)), again)
    assert third.effects["autocast"] == 0


@pytest.mark.slow
def test_sizes_may_vary() -> None:
    model = convolutional()
    made = lowered(model, "mixed", dynamic=({0: torch.export.Dim("batch", min=1, max=8)},))
    x = torch.randn(5, 3, 8, 8)
    wanted = model[0](x)
    got = answer(made, (x,))
    assert float((got - wanted).norm() / wanted.norm()) < 3e-3


def test_pins_by_module_operator_and_name_the_last_one_holds() -> None:
    by_module = precisions(lowered(convolutional(), "mixed", "head|block=fp32"))
    assert by_module["linear"] == by_module["convolution_1"] == "fp32"
    by_op = precisions(lowered(convolutional(), "mixed", "aten.convolution=fp32"))
    assert by_op["convolution"] == by_op["convolution_1"] == "fp32"
    assert by_op["linear"] == "fp16"
    both = precisions(lowered(convolutional(), "mixed", "convolution.*=fp32", "convolution_1=bf16"))
    assert (both["convolution"], both["convolution_1"]) == ("fp32", "bf16")
    alone = precisions(lowered(convolutional(), None, "linear=fp16"))
    assert {name for name, kind in alone.items() if kind != "fp32"} == {"linear"}


def test_sums_of_products_in_float32() -> None:
    model = convolutional()
    made = lowered(model, "fp16", "linear=fp16-fp32acc")
    graph = made.captured.graph_module.graph
    (linear,) = graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert [n.meta["val"].dtype for n in linear.all_input_nodes] == [torch.float32] * 3
    for operand in linear.all_input_nodes:  # rounded to float16 before
        (rounded,) = operand.all_input_nodes
        assert rounded.meta["val"].dtype == torch.float16
    (reader,) = linear.users
    assert reader.meta["val"].dtype == torch.float16
    assert precisions(made)["linear"] == "fp16-fp32acc"
    assert distance(made, model).rel_l2 < 3e-3


@pytest.mark.parametrize(
    ("pin", "told", "hint"),
    [
        ("haed=fp32", "means no operator of the model", "nearest are head"),
        ("zzzz=fp32", "means no operator of the model", "the model has head"),
        ("relu=fp16-fp32acc", "means no product", "pin it to fp16"),
        ("add.*=fp32", "compute with no floating-point numbers", "leave it away"),
    ],
)
def test_pins_that_mean_nothing(pin: str, told: str, hint: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.head(x).relu(), at + 1

    model = alive(Odd(), torch.randn(2, 4), torch.arange(3))
    with pytest.raises(ConfigError, match=told) as caught:
        lowered(model, "mixed", pin)
    assert hint in str(caught.value.hint)


def test_what_pytorch_has_in_no_small_type_keeps_its_own() -> None:
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv3d(2, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool3d(self.convolution(x), 2)

    model = alive(Volume(), torch.randn(1, 2, 6, 6, 6))
    made = lowered(model, "fp16")
    assert precisions(made) == {"convolution": "fp16", "avg_pool3d": "fp32"}
    assert distance(made, model).rel_l2 < 3e-3


def test_what_makes_an_angle_stays_wide() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.frequencies = nn.Linear(4, 4), nn.Linear(4, 8)
            self.after = nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            angle = self.frequencies(self.before(x)) * 50
            return self.after(torch.cat((angle.sin(), angle.cos()), -1))

    model = alive(Waves(), torch.randn(3, 4))
    made = lowered(model, "mixed", "before=fp32")
    found = precisions(made)
    assert (found["linear_1"], found["mul"], found["linear_2"]) == ("fp32", "fp32", "fp16")
    assert distance(made, model).rel_l2 < 3e-3
    assert distance(lowered(model, "fp16"), model).rel_l2 > 1e-2


def test_overflow_is_found_before_it_happens() -> None:
    model = loud()
    made = lowered(model, "mixed")
    found = precisions(made)
    assert found["mul_1"] == found["add"] == "fp32"
    assert found["linear"] == found["linear_1"] == "fp16"
    finding = made.plan.findings[0]
    assert (finding.node, finding.kind, finding.kept) == ("mul_1", "overflow", True)
    assert finding.where.startswith("models.py:")
    (risk, *_) = lowered(model, "fp16").plan.findings
    assert (risk.node, risk.kept) == ("mul_1", False)
    assert lowered(model, "mixed-bf16").plan.findings == ()


def test_underflow_is_found_before_it_happens() -> None:
    class Quiet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear((self.linear(x) * 1e-7).relu() * 1e7)

    model = alive(Quiet(), torch.randn(2, 8))
    made = lowered(model, "mixed")
    finding = made.plan.findings[0]
    assert (finding.kind, finding.kept) == ("underflow", True)
    assert "is too small for float16" in finding.text
    assert distance(made, model).rel_l2 < 3e-3
    assert distance(lowered(model, "fp16"), model).rel_l2 > 1e-2


def test_numbers_that_a_type_lacks() -> None:
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.linear(x)
            return self.linear(x / (x.abs().amax(-1, keepdim=True) + 1e-12))

    made = lowered(alive(Guarded(), torch.randn(2, 8)), "mixed")
    (row,) = (row for row in made.plan.rows if row.op == "aten.add.Tensor")
    assert (row.precision, row.why) == ("fp32", "takes the number 1e-12, which float16 lacks")
