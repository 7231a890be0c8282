# SPDX-License-Identifier: Apache-2.0
"""What is quantized in a lowered graph, and what that does to its answers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from tests.packager.calibration.models import (
    answer,
    captured_of,
    cosine,
    quantized,
    residual,
    samples_of,
)
from trtpack.calibration import measuring
from trtpack.capture import constant_of
from trtpack.errors import CalibrationError, ConfigError
from trtpack.lowering import Lowered
from trtpack.options import OBSERVER_NAMES, ObserverName, Pin
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE
from trtpack_runtime.recipes import replay
from trtpack_runtime.tf32 import full_float32

aten = torch.ops.aten


def reads(lowered: Lowered, op: object) -> Counter[tuple[str, ...]]:
    """What the operands of an operator are, by name, over all its nodes."""
    found: Counter[tuple[str, ...]] = Counter()
    for node in lowered.captured.graph_module.graph.nodes:
        if node.target is op:
            sources = [s for s in node.all_input_nodes if constant_of(s) is None]
            found[tuple(str(s.target).split(".")[-2] for s in sources)] += 1
    return found


@pytest.mark.parametrize("observer", OBSERVER_NAMES)
def test_int8_answers_what_the_model_does(observer: ObserverName) -> None:
    module, args = residual()
    assert cosine(answer(quantized(module, args, observer=observer), args), module(*args)) > 0.999


@pytest.mark.parametrize(
    ("dtype", "block", "stored", "least"),
    [("FP8", None, False, 0.999), ("INT8", None, True, 0.9999), ("INT8", 8, True, 0.9999),
     ("INT4", 16, True, 0.98)],
)  # fmt: skip
def test_other_types(dtype: str, block: int | None, stored: bool, least: float) -> None:
    module, args = residual()
    lowered = quantized(module, args, dtype, block=block, stored=stored)
    assert cosine(answer(lowered, args), module(*args)) > least
    kinds = {n.target for n in lowered.captured.graph_module.graph.nodes}
    assert (DEQUANTIZE in kinds) == stored
    assert (FAKE_QUANTIZE in kinds) != stored


def test_stored_weights_are_rounded_as_pytorch_rounds_channels() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(24, 8)).eval(), torch.randn(4, 24)
    lowered = quantized(module, (x,), stored=True, samples=())
    weight = module[0].weight.detach()
    scale = (weight.abs().amax(1) / 127).half().float()
    zeros = torch.zeros(8, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -128, 127)
    wanted = nn.functional.linear(x, rounded, module[0].bias)
    torch.testing.assert_close(answer(lowered, (x,)), wanted)
    (row,) = lowered.plan.rows
    assert (row.precision, row.why) == ("int8", "its weights are stored so")


@pytest.mark.parametrize("mixed", [False, True])
def test_every_product_reads_few_bits_and_no_pair_is_left_alone(mixed: bool) -> None:
    module, args = residual()
    lowered = quantized(module, args, mixed=mixed)
    both = ("fake_quantize", "fake_quantize")
    assert reads(lowered, aten.convolution.default) == {both: 4}
    assert reads(lowered, aten.linear.default) == {both: 1}
    assert reads(lowered, aten.add.Tensor) == {("convolution", "fake_quantize"): 1}
    assert reads(lowered, aten.adaptive_avg_pool2d.default) == {("fake_quantize",): 1}
    assert reads(lowered, aten.cat.default) == {both: 1}, "what is joined has one scale"
    graph = lowered.captured.graph_module.graph
    few = [n for n in graph.nodes if n.target is FAKE_QUANTIZE]
    assert all(node.users for node in few)
    (join,) = graph.find_nodes(op="call_function", target=aten.cat.default)
    scales = [constant_of(node.args[1]) for node in few if join in node.users]
    assert len(scales) == 2
    assert torch.equal(*scales)


def test_a_value_is_rounded_once_for_all_its_readers() -> None:
    module, args = residual()
    lowered = quantized(module, args)
    plan = lowered.plan.quantization
    assert plan is not None
    assert (plan["products"], plan["weights"]) == (5, 5)
    shared = [
        node
        for node in lowered.captured.graph_module.graph.nodes
        if node.target is FAKE_QUANTIZE and len(node.users) == 2
    ]
    assert len(shared) == 1, "the second convolution and the residual read one"


def test_weights_have_a_scale_for_each_channel_that_new_weights_change() -> None:
    module, args = residual()
    lowered = quantized(module, args)
    name = "second|weight_scale"
    weights = {k: v.detach().clone() for k, v in module.state_dict().items()}
    scale = replay(dict(lowered.recipes[name]), weights)
    largest = module.second.weight.detach().abs().amax((1, 2, 3))
    torch.testing.assert_close(scale, largest / 127, rtol=1e-3, atol=0)
    assert torch.equal(scale, scale.half().float())
    weights["second.weight"] *= 3
    again = replay(dict(lowered.recipes[name]), weights)
    torch.testing.assert_close(again, largest * 3 / 127, rtol=1e-3, atol=0)


def test_pinned_operators_keep_their_type() -> None:
    module, args = residual()
    lowered = quantized(module, args, pins=(Pin("head.*", "fp32"),))
    assert reads(lowered, aten.linear.default) == {("reshape",): 1}
    rows = {row.module: row.precision for row in lowered.plan.rows if "linear" in row.op}
    assert rows == {"head": "fp32"}


def test_the_plan_names_what_computes_in_few_bits() -> None:
    module, args = residual()
    counts = quantized(module, args, mixed=True).plan.counts
    assert counts["int8"] == 5
    assert "fp16" in counts


def test_a_value_that_is_always_zero_is_left() -> None:
    module, args = residual()
    nn.init.zeros_(module.norm.weight)
    nn.init.constant_(module.norm.bias, -1.0)
    lowered = quantized(module, args)
    assert lowered.plan.quantization is not None
    assert "every number of it is 0" in lowered.plan.quantization["left"].values()
    assert torch.allclose(answer(lowered, args), module(*args), atol=0.02)


def test_values_of_one_number_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    module, args = residual()
    nn.init.zeros_(module.norm.weight)
    nn.init.constant_(module.norm.bias, -1.0)
    for layer in (module.second, module.third):
        assert layer.bias is not None
        nn.init.constant_(layer.bias, 0.5)
    with caplog.at_level("WARNING", "trtpack.calibration"):
        quantized(module, args)
    assert "only zeros at" in caplog.text
    assert "only one number at" in caplog.text


def test_weights_that_are_all_zero_stay_so() -> None:
    module, args = residual()
    nn.init.zeros_(module.head.weight)
    assert torch.allclose(answer(quantized(module, args), args), module(*args), atol=1e-6)


@pytest.mark.parametrize(("dtype", "block", "told"), [("INT4", None, 128), ("INT8", 12, 12)])
def test_rows_that_blocks_fill_nowhere_are_refused(
    dtype: str, block: int | None, told: int
) -> None:
    module, args = residual()
    with pytest.raises(ConfigError, match=f"blocks of {told} fill no row") as caught:
        quantized(module, args, dtype, block=block, stored=True)
    assert caught.value.hint == "use --weight-block 16"


@pytest.mark.parametrize(("dtype", "block", "told"), [("INT4", None, 128), ("INT8", 12, 12)])
def test_rows_that_blocks_do_not_fill_keep_their_type(
    dtype: str, block: int | None, told: int
) -> None:
    module, args = (
        nn.Sequential(nn.Linear(3 * 128, 16), nn.Linear(16, 4)).eval(),
        (torch.randn(2, 3 * 128),),
    )
    lowered = quantized(module, args, dtype, block=block, stored=True)
    assert lowered.plan.quantization is not None
    assert lowered.plan.quantization["block"] == told
    assert lowered.plan.quantization["products"] == lowered.plan.quantization["weights"]
    left = lowered.plan.quantization["left"].values()
    assert f"its 16 columns are no multiple of a block's {told}" in left


def test_products_of_two_values() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x @ y

    args = (torch.randn(2, 3, 4), torch.randn(2, 4, 5))
    captured = captured_of(Product(), args)
    names = [name for name in captured.inputs if name is not None]
    lowered = quantized(Product(), args, samples=[dict(zip(names, args, strict=True))])
    assert cosine(answer(lowered, args), args[0] @ args[1]) > 0.999
    assert lowered.plan.quantization is not None
    assert lowered.plan.quantization["values"] == 2


def test_no_sample_and_numbers_that_are_not_finite() -> None:
    module, args = residual()
    with pytest.raises(CalibrationError, match="there is no calibration sample"):
        quantized(module, args, samples=[])
    (name,) = samples_of(captured_of(module, args), 1)[0]
    with pytest.raises(CalibrationError, match="sample 0 makes x a number that is not finite"):
        quantized(module, args, samples=[{name: torch.full(args[0].shape, float("inf"))}])


def test_a_sample_that_the_gpu_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(measuring, "run_graph", full)
    with pytest.raises(CalibrationError, match="sample 0 is too large for the GPU's memory"):
        quantized(*residual())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_device_finds_the_ranges_that_the_cpu_does(device: str) -> None:
    module, args = residual()
    samples = samples_of(captured_of(module, args))
    with full_float32():
        here, there = (
            quantized(module, args, samples=samples, device=where).plan.quantization
            for where in (None, torch.device(device))
        )
    assert here is not None
    assert there is not None
    wanted, found = here["reaches"], there["reaches"]
    assert wanted
    assert found.keys() == wanted.keys()
    for name, reach in wanted.items():
        assert found[name] == pytest.approx(reach, rel=1e-2), name  # a bin, or its neighbour


def test_a_model_without_products_or_with_scales_of_its_own() -> None:
    with pytest.raises(ConfigError, match="nothing in the model can be quantized to INT8"):
        quantized(nn.ReLU(), (torch.randn(4, 3, 16, 16),))

    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127)
            made: torch.Tensor = self.linear(x)
            return made

    with pytest.raises(ConfigError, match="quantized already"):
        quantized(Known().eval(), (torch.randn(4, 3, 16, 16),))
