# SPDX-License-Identifier: Apache-2.0
"""What each TensorRT is given of quantized networks, and what devices refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.packager.quantization.networks import EVERY, T, emitted_everywhere, made, refusals
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE

HALF = pytest.param(torch.float16, marks=pytest.mark.slow)


class Convolved(nn.Module):
    """A convolution and a layer of INT8, a layer of weights in 4 bits, in one floating type."""

    def __init__(self, dtype: torch.dtype = torch.float32, few: str = "INT8") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.dtype, self.few = dtype, few
        kernel, weight = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(8, 4)
        self.kernel, self.weight = nn.Parameter(kernel.to(dtype)), nn.Parameter(weight.to(dtype))
        self.register_buffer("scale", kernel.abs().amax((1, 2, 3)) / 127)
        self.register_buffer(
            "four", torch.randint(-8, 8, (6, 8), generator=generator).to(torch.int8)
        )
        self.register_buffer("blocks", torch.arange(1.0, 13.0).reshape(6, 2) / 64)

    def forward(self, x: T) -> T:
        scale = torch.tensor(0.0271)
        kernel = FAKE_QUANTIZE(self.kernel, self.scale, 0, self.few)
        x = FAKE_QUANTIZE(x, scale, None, self.few)
        x = torch.relu(nn.functional.conv2d(x, kernel)).amax((2, 3))
        x = nn.functional.linear(x, self.weight)
        return nn.functional.linear(x, DEQUANTIZE(self.four, self.blocks, 1, "INT4", self.dtype))


def image(dtype: torch.dtype = torch.float32) -> T:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(8)).to(dtype)


@pytest.mark.slow
def test_every_release_takes_int8_and_weights_in_four_bits_where_it_has_them() -> None:
    networks = emitted_everywhere(Convolved(), image())
    for release, network in networks.items():
        assert network.kinds["quantize INT8"] == network.kinds["dequantize INT8"] == 2
        assert network.kinds["dequantize INT4"] == (release != "8.6")
        assert {scale.dtype for scale in network.scales()} == {torch.float32}


@pytest.mark.slow
def test_scales_keep_their_value_beside_float16() -> None:
    """Before 10.13 a scale has the type of what it scales; where it cannot, that is cast."""
    module = Convolved(torch.float16)
    for release, network in emitted_everywhere(module, image(torch.float16)).items():
        assert (network.kinds["cast"] > 0) == (release == "10.3")
        wanted = [module.scale, torch.tensor(0.0271), *[module.blocks] * (release != "8.6")]
        assert all(map(torch.equal, [s.float() for s in network.scales()], wanted))


@pytest.mark.slow
def test_casts_beside_quantized_numbers_are_left_out_where_scales_allow_it() -> None:
    class Narrow(Convolved):
        def forward(self, x: T) -> T:
            x = FAKE_QUANTIZE(x.half().float(), torch.tensor(0.0271), None, "INT8").half()
            kernel = FAKE_QUANTIZE(self.kernel, self.scale, 0, "INT8")
            return nn.functional.conv2d(x, kernel.half())

    rounded = made(lambda x: FAKE_QUANTIZE(x.half(), torch.tensor(0.0271), None, "INT8"), image())
    assert rounded.kinds["cast"] == 1
    wanted = {"8.6": 1, "10.3": 4, "10.16": 1, "11.1": 1}
    for release, network in emitted_everywhere(Narrow(), image()).items():
        assert network.kinds["cast"] == wanted[release], release


@pytest.mark.parametrize("few", ["INT8", "FP8"])
@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
def test_tensorrt_rtx_builds_it_for_sm89(few: str, dtype: torch.dtype) -> None:
    network = made(Convolved(dtype, few), image(dtype))
    assert network.kinds[f"quantize {few}"] == 2
    assert network.kinds["dequantize INT4"] == 1
    assert network.built() > 0


def test_fp8_is_refused_with_the_fact_where_a_device_has_none() -> None:
    for target, fact in (
        ("orin@jetpack-6.2", "Jetson AGX Orin 64GB (SM 8.7) has no FP8"),
        ("orin@jetpack-6.0", "TensorRT has FP8 from 10.0 on"),
    ):
        told = refusals(Convolved(few="FP8"), image(), target=target)
        assert set(told) == {f"trtpack.fake_quantize.default: {fact}"}
    assert refusals(Convolved(few="FP8"), image(), target=EVERY["11.1"]) == []


@pytest.mark.slow
def test_stored_fp8_weights_become_floats_where_a_device_has_none() -> None:
    weight = torch.randn(8, 4).to(torch.float8_e4m3fn)
    scale = torch.rand(8) + 0.1

    def function(x: T) -> T:
        return nn.functional.linear(x, DEQUANTIZE(weight, scale, 0, "FP8", torch.float32))

    x = torch.randn(3, 4)
    assert made(function, x, target="rtx-4090").weights() == ["FP8"]
    for target in (EVERY["8.6"], EVERY["10.3"]):
        assert made(function, x, target=target).weights() == []


@pytest.mark.slow
def test_rtx_on_turing_gets_floats_for_four_bits() -> None:
    network = made(Convolved(), image(), target="t4@tensorrt-rtx-1.7")
    assert network.kinds["dequantize INT4"] == 0
