# SPDX-License-Identifier: Apache-2.0
"""Models trained with the fake quantizers of torch.ao come in as they are."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization as ao
from torch import nn

from tests.packager.quantization.fake_quantizers import SYMMETRIC, prepared
from tests.packager.quantization.models import images, small
from tests.packager.quantization.networks import made
from trtpack.capture import capture
from trtpack.errors import CaptureError


def trained(config: ao.QConfig) -> nn.Module:
    """A model with fake quantizers that have seen images, ready to be deployed."""
    model = prepared(small(), config)
    model(images(8))
    return model.eval().apply(ao.disable_observer)


def quantizers(model: nn.Module) -> list[ao.FakeQuantizeBase]:
    return [m for m in model.modules() if isinstance(m, ao.FakeQuantizeBase)]


def test_scales_of_symmetric_fake_quantizers_are_kept_to_the_bit() -> None:
    model = trained(SYMMETRIC)
    batch = torch.export.Dim("batch", min=1, max=8)
    network = made(model, images(), dynamic=({0: batch},))
    assert network.kinds["quantize INT8"] == 4
    assert network.weights() == ["INT8"] * 4
    wanted = {tuple(q.scale.tolist()) for q in quantizers(model)}
    assert {tuple(scale.reshape(-1).tolist()) for scale in network.scales()} <= wanted
    assert len(network.scales()) == 8


@pytest.mark.slow
def test_a_batch_norm_that_training_divided_out_leaves_a_bias() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    model.qconfig = SYMMETRIC
    model = ao.prepare_qat(ao.fuse_modules_qat(model, [["0", "1", "2"]]))
    for seed in range(3):
        model(images(8) * (seed + 1))
    network = made(model.eval().apply(ao.disable_observer), images())
    assert network.effects["cancel_norm_scales"] == 1
    assert network.weights() == ["INT8"]
    kept = {"quantize INT8", "dequantize INT8", "convolution_nd", "activation"}
    assert set(network.kinds) == kept


@pytest.mark.slow
def test_pytorchs_own_choice_for_training_becomes_the_same_numbers() -> None:
    """Seven bits around any middle, in fused observers, and eight bits for weights."""
    network = made(trained(ao.get_default_qat_qconfig("fbgemm")), images())
    assert network.kinds["quantize INT8"] > 0
    assert network.weights() == ["INT8"] * 4


@pytest.mark.slow
def test_a_fake_quantizer_that_is_off_is_nothing() -> None:
    network = made(trained(SYMMETRIC).apply(ao.disable_fake_quant), images())
    assert not {"quantize INT8", "dequantize INT8"} & network.kinds.keys()


def test_a_model_that_was_converted_is_refused_with_the_way() -> None:
    model = ao.convert(trained(ao.get_default_qat_qconfig("fbgemm")))
    with pytest.raises(CaptureError) as refused:
        capture(model, (images(),))
    assert "before torch.ao's convert" in str(refused.value.hint)


def test_a_fake_quantizer_that_still_observes_is_refused_by_name() -> None:
    model = trained(SYMMETRIC)
    model.hidden.activation_post_process.enable_observer()
    with pytest.raises(CaptureError, match=r"hidden\.activation_post_process still observes") as e:
        capture(model, (images(),))
    assert "disable_observer" in str(e.value.hint)
