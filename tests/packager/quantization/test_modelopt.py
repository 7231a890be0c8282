# SPDX-License-Identifier: Apache-2.0
"""Models that NVIDIA ModelOpt quantized come in as they are."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from tests.packager.quantization.models import images, small
from tests.packager.quantization.networks import Made, made
from trtpack.capture import capture
from trtpack.errors import CaptureError
from trtpack.sources.torchvision_ops import import_torchvision

pytestmark = pytest.mark.slow  # importing ModelOpt takes several seconds


def quantized(name: str, change: Any = None) -> nn.Module:
    import_torchvision()  # which ModelOpt imports too, with operators that its wheel lacks here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq

        config = copy.deepcopy(getattr(mtq, name))
        if change is not None:
            change(config)
        model = mtq.quantize(small(), config, lambda model: model(images(8)))
    assert isinstance(model, nn.Module)
    return model


def ranges(model: nn.Module) -> dict[str, torch.Tensor]:
    """The largest absolute values of the quantizers that are on, by name."""
    found = {}
    for name, part in model.named_modules():
        if type(part).__name__.endswith("Quantizer") and part.is_enabled:
            found[name] = part._amax.detach().float()
    return found


def _has(network: Made, amax: torch.Tensor, most: float) -> bool:
    wanted = (amax / most).reshape(-1)
    scales = (scale.reshape(-1) for scale in network.scales())
    return any(scale.numel() == wanted.numel() and torch.equal(scale, wanted) for scale in scales)


@pytest.mark.parametrize(("name", "few", "most"), [
    ("INT8_DEFAULT_CFG", "INT8", 127.0), ("FP8_DEFAULT_CFG", "FP8", 448.0),
])  # fmt: skip
def test_eight_bits_keep_their_scales_to_the_bit(name: str, few: str, most: float) -> None:
    model = quantized(name)
    network = made(model, images())
    amaxes = ranges(model)
    assert network.kinds[f"quantize {few}"] == len(amaxes) - 4 == 5  # the pool has one, too
    assert network.weights() == [few] * 4
    assert [name for name, amax in amaxes.items() if not _has(network, amax, most)] == []
    assert network.built() > 0


def test_weights_in_blocks_of_four_bits_are_stored_so() -> None:
    def in_blocks_of_8(config: Any) -> None:
        for row in config["quant_cfg"]:
            for attributes in [row.get("cfg")] if isinstance(row, dict) else []:
                if isinstance(attributes, dict) and "block_sizes" in attributes:
                    attributes["block_sizes"][-1] = 8

    model = quantized("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", in_blocks_of_8)
    network = made(model, images())
    assert network.kinds["dequantize INT4"] >= 2
    amax = ranges(model)["head.weight_quantizer"]
    assert _has(network, amax, 7.0)
    assert network.built() > 0


def test_fp4_is_refused_by_name() -> None:
    model = quantized("INT8_DEFAULT_CFG")
    model.head.weight_quantizer.num_bits = (2, 1)
    with pytest.raises(CaptureError, match=r"head\.weight_quantizer rounds to FP4"):
        capture(model, (images(),))


def test_a_range_of_no_size_is_refused_by_name() -> None:
    model = quantized("INT8_DEFAULT_CFG")
    model.head.input_quantizer._amax.zero_()
    with pytest.raises(CaptureError, match=r"head\.input_quantizer has a range of no size"):
        capture(model, (images(),))
