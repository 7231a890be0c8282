# SPDX-License-Identifier: Apache-2.0
"""torchao's quantized weights, and programs that PT2E quantized, come in as they are."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from tests.packager.quantization.models import images, small
from tests.packager.quantization.networks import T, made, refusals
from trtpack import pipeline
from trtpack.capture import capture
from trtpack.lowering import lower
from trtpack.options import InputSpec, Options


def quantized(config: Any) -> nn.Module:
    from torchao.quantization import quantize_

    model = small()
    quantize_(model, config)
    return model


def test_weights_in_int8_stay_stored_with_their_scales() -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    model = quantized(Int8WeightOnlyConfig())
    network = made(model, images())
    assert network.weights() == ["INT8", "INT8"]
    for layer, scale in zip((model.hidden, model.head), network.scales(), strict=True):
        assert torch.equal(scale, layer.weight.scale.reshape(-1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_in_int4_stay_in_blocks(dtype: torch.dtype) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    model = small().to(dtype)
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(model, config, filter_fn=lambda module, name: name == "head")
    network = made(model, images().to(dtype), most=2e-2 if dtype == torch.bfloat16 else 2e-3)
    assert network.weights() == ["INT4"]
    assert torch.equal(network.scales()[0].float(), model.head.weight.scale.float())
    assert network.built() > 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_weights_in_int8_stay_in_groups(dtype: torch.dtype) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    model = small().to(dtype)
    config = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerGroup(32))
    quantize_(model, config, filter_fn=lambda module, name: name == "head")
    network = made(model, images().to(dtype), most=2e-3)
    assert network.weights() == ["INT8"]
    assert torch.equal(network.scales()[0].float(), model.head.weight.scale.float().reshape(-1))
    assert network.built() > 0


@pytest.mark.slow
def test_weights_in_e4m3_stay_stored() -> None:
    from torchao.quantization import Float8WeightOnlyConfig

    model = quantized(Float8WeightOnlyConfig())
    network = made(model, images())
    assert network.weights() == ["FP8", "FP8"]
    assert torch.equal(network.scales()[0], model.hidden.weight.scale.reshape(-1))
    assert network.built() > 0


@pytest.mark.slow
def test_a_fixed_scale_quantizes_the_input_too() -> None:
    from torchao.quantization import Int8StaticActivationInt8WeightConfig, PerTensor

    scale = torch.full((1, 1), 0.0123)
    granularity = [PerTensor(), PerTensor()]
    model = quantized(
        Int8StaticActivationInt8WeightConfig(act_quant_scale=scale, granularity=granularity)
    )
    network = made(model, images())
    assert network.kinds["quantize INT8"] == 2
    assert float(scale) in [float(s) for s in network.scales() if s.numel() == 1]
    assert network.built() > 0


@pytest.mark.slow
def test_scales_found_while_it_runs_stay_in_pytorch_with_the_reason() -> None:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    told = refusals(quantized(Int8DynamicActivationInt8WeightConfig()), images(), target="rtx-4090")
    assert any("multiplies int8 by int8" in reason for reason in told)


def pt2e(symmetric: bool) -> nn.Module:
    """The small network, quantized by PT2E with XNNPACK's quantizer."""
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.testing.pt2e._xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    config = get_symmetric_quantization_config(is_per_channel=True)
    if symmetric:
        of_zero = {"qscheme": torch.per_tensor_symmetric}
        spec = config.input_activation
        spec = QuantizationSpec(**{**vars(spec), **of_zero})
        config = type(config)(spec, spec, config.weight, config.bias, config.is_qat)
    program = torch.export.export(small(), (images(),), strict=False).module()
    prepared = quantize_pt2e.prepare_pt2e(program, XNNPACKQuantizer().set_global(config))
    prepared(images(8)[:2])
    return quantize_pt2e.convert_pt2e(prepared)


def _written_scales(program: nn.Module) -> set[float]:
    return {
        float(torch.tensor(node.args[1]))
        for node in program.graph.nodes
        if "quantize_per_tensor" in str(node.target) and isinstance(node.args[1], float)
    }


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "affine"])
def test_a_program_of_pt2e_keeps_its_scales(symmetric: bool) -> None:
    program = pt2e(symmetric)
    network = made(program, images())
    assert network.weights() == ["INT8"] * 4
    single = {float(scale) for scale in network.scales() if scale.numel() == 1}
    assert single <= _written_scales(program)
    assert bool(single) == symmetric == bool(network.kinds["quantize INT8"])
    assert network.built() > 0


@pytest.mark.slow
def test_a_saved_program_of_pt2e_is_the_same(tmp_path: Any) -> None:
    exported = torch.export.export(pt2e(True), (images(),), strict=False)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    captured = capture(torch.export.load(file), (images(),))
    lowered = lower(captured)
    assert lowered.effects["recognise_quantization"] > 8
    left = [str(n.target) for n in captured.graph_module.graph.nodes]
    assert not [name for name in left if name.startswith("quantized_decomposed")]


@pytest.mark.slow
def test_a_layer_over_a_plain_weight_is_left_alone() -> None:
    x: T = torch.randn(2, 8)
    network = made(nn.Linear(8, 4), x)
    assert dict(network.kinds) == {"matrix_multiply": 1, "elementwise": 1}


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "affine"])
def test_the_report_says_what_is_computed_in_floats(symmetric: bool) -> None:
    options = Options(
        targets=("rtx-4090",), dry_run=True, inputs=(InputSpec("x", tuple(images().shape)),)
    )
    notes = [n for n in pipeline.build(pt2e(symmetric), options).notes if "in floats" in n]
    assert [note.partition(" computed")[0] for note in notes] == (
        [] if symmetric else ["9 quantizers are"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("few", "most"), [("INT8", 0.3), ("INT8 in groups", 0.33), ("FP8", 0.3), ("INT4", 0.16)]
)
def test_weights_stay_small_within_engines(few: str, most: float) -> None:
    from torchao import quantization as tq

    configs: dict[str, Any] = {
        "INT8": tq.Int8WeightOnlyConfig(),
        "INT8 in groups": tq.IntxWeightOnlyConfig(torch.int8, tq.PerGroup(64)),
        "FP8": tq.Float8WeightOnlyConfig(),
        "INT4": tq.IntxWeightOnlyConfig(torch.int4, tq.PerGroup(64)),
    }
    model, x = nn.Sequential(nn.Linear(1024, 1024, bias=False)).eval(), torch.randn(4, 1024)
    whole = made(model, x).built()
    tq.quantize_(model, configs[few])
    assert made(model, x).built() < most * whole
