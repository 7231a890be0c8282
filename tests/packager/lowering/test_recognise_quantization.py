# SPDX-License-Identifier: Apache-2.0
"""Operators that quantize become layers of the same scales, or arithmetic of the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.packager.quantization.networks import T, made, refusals
from trtpack_runtime import recipes

Q = torch.ops.quantized_decomposed
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(3)) * 2
SCALE = 0.0312347


def pair(x: T, scale: float, zero: int, low: int, high: int, dtype: torch.dtype = torch.int8) -> T:
    whole = Q.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return Q.dequantize_per_tensor(whole, scale, zero, low, high, dtype)


def fake(x: T, zero: int, low: int, high: int, scale: float = SCALE) -> T:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


QUANTIZED: tuple[tuple[float, int, Callable[[T, float], T]], ...] = (
    (0.031, 0, lambda x, s: pair(x, s, 0, -128, 127)),
    (0.032, 0, lambda x, s: pair(x, s, 128, 0, 255, torch.uint8)),
    (0.033, 1, lambda x, s: pair(x, s, 0, -127, 127)),
    (0.034, 0, lambda x, s: fake(x, 0, -128, 127, s)),
    (0.035, 1, lambda x, s: fake(x, 0, 0, 127, s)),
    (0.036, 2, lambda x, s: fake(x, 50, 0, 127, s)),
    (0.4, 2, lambda x, s: fake(x, 0, -8, 7, s)),
    (0.037, 0, lambda x, s: fake(torch.relu(x), 0, 0, 127, s)),
)
"""What fits into INT8: a scale, and how many bounds have to be kept besides INT8's own."""


def test_what_fits_becomes_two_layers_with_the_same_scale() -> None:
    network = made(lambda x: [f(x, scale) for scale, _, f in QUANTIZED], X, most=1e-7)
    pairs = 3
    assert network.effects["recognise_quantization"] == len(QUANTIZED) + pairs
    assert network.kinds["quantize INT8"] == network.kinds["dequantize INT8"] == len(QUANTIZED)
    assert network.kinds["elementwise"] == sum(bounds for _, bounds, _ in QUANTIZED)
    wanted = [torch.tensor(scale) for scale, _, _ in QUANTIZED]
    assert all(map(torch.equal, network.scales(), wanted))


def found_while_it_runs(x: T) -> T:
    scale, zero = x.abs().amax() / 127, torch.tensor(0)
    whole = Q.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
    return Q.dequantize_per_tensor.tensor(whole, scale, zero, -128, 127, torch.int8)


ARITHMETIC: tuple[Callable[[T], T], ...] = (
    lambda x: pair(x, SCALE, 7, -128, 127),
    lambda x: fake(x, 7, -128, 127),
    lambda x: pair(x, SCALE, 0, 0, 255, torch.uint8),
    lambda x: Q.quantize_per_tensor(x, SCALE, 0, -128, 127, torch.int8),
    found_while_it_runs,
)
"""Other middles, more above 0 than INT8 has, whole numbers as an answer, an unknown scale."""


def test_anything_else_is_arithmetic_of_the_same_numbers() -> None:
    network = made(lambda x: [function(x) for function in ARITHMETIC], X, most=1e-6)
    assert not {"quantize INT8", "dequantize INT8"} & network.kinds.keys()


class Weights(nn.Module):
    """Layers whose weights functions of a weight and its scales give."""

    def __init__(self, *meant: Callable[[Weights], T]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(8, 6, generator=generator))
        self.register_buffer("scale", self.weight.detach().abs().amax(1) / 127)
        self.register_buffer("zero", torch.zeros(8, dtype=torch.int32))
        whole = torch.round(self.weight.detach() / self.scale[:, None])
        self.register_buffer("whole", whole.to(torch.int8))
        self.register_buffer("bytes", (whole + 128).clamp(0, 255).to(torch.uint8))
        self.register_buffer("blocks", self.weight.detach().reshape(8, 2, 3).abs().amax(2) / 7)
        apart = self.blocks.repeat_interleave(3, 1)
        self.register_buffer("four", torch.round(self.weight.detach() / apart).to(torch.int8))
        self.meant = meant

    def forward(self, x: T) -> list[T]:
        return [nn.functional.linear(x, meant(self)) for meant in self.meant]


def channels(m: Weights) -> T:
    return torch.fake_quantize_per_channel_affine(m.weight, m.scale, m.zero, 0, -128, 127)


def blocks(m: Weights) -> T:
    zeros = torch.zeros(8, 2)
    return Q.dequantize_per_channel_group(
        m.four, m.blocks, zeros, -8, 7, torch.int8, 3, torch.float32
    )


def blocks_of_eight_bits(m: Weights) -> T:
    zeros = torch.zeros(8, 2)
    return Q.dequantize_per_channel_group(
        m.whole, m.blocks, zeros, -128, 127, torch.int8, 3, torch.float32
    )


FLOAT_WEIGHTS: tuple[Callable[[Weights], T], ...] = (
    channels,
    lambda m: torch.fake_quantize_per_channel_affine(m.weight, 2 * m.scale, m.zero, 0, -127, 127),
    lambda m: Q.dequantize_per_channel(
        Q.quantize_per_channel(m.weight, 3 * m.scale, m.zero, 0, -128, 127, torch.int8),
        3 * m.scale, m.zero, 0, -128, 127, torch.int8,
    ),
    lambda m: torch.fake_quantize_per_tensor_affine(
        m.weight, m.scale[:1], m.zero[:1], -128, 127
    ),
)  # fmt: skip
STORED: tuple[Callable[[Weights], T], ...] = (
    lambda m: Q.dequantize_per_channel(m.whole, m.scale, m.zero, 0, -128, 127, torch.int8),
    lambda m: Q.dequantize_per_channel(m.whole, 2 * m.scale, None, 0, -128, 127, torch.int8),
    lambda m: Q.dequantize_per_channel(
        m.bytes, 3 * m.scale, m.zero + 128, 0, 0, 255, torch.uint8
    ),
    blocks,
    blocks_of_eight_bits,
)  # fmt: skip


def test_weights_are_rounded_as_pytorch_rounds_them() -> None:
    module = Weights(*FLOAT_WEIGHTS)
    network = made(module, X, most=1e-6)
    assert network.weights() == ["INT8"] * 4
    wanted = [module.scale, 2 * module.scale, 3 * module.scale, module.scale[0]]
    assert all(map(torch.equal, network.scales(), wanted))
    again = made(module, X, target="orin@jetpack-6.0", most=1e-6)
    assert again.weights() == ["FLOAT"] * 4
    assert again.kinds["quantize INT8"] == again.kinds["dequantize INT8"] == 4
    assert all(map(torch.equal, again.scales(), wanted))


def test_stored_weights_stay_stored() -> None:
    module = Weights(*STORED)
    network = made(module, X, most=1e-6)
    assert network.weights() == ["INT8", "INT8", "INT8", "INT4", "INT8"]
    assert not [kind for kind in network.kinds if kind.startswith("quantize")]
    scales = [module.scale, 2 * module.scale, 3 * module.scale, module.blocks]
    wanted = [*scales, module.blocks.reshape(-1)]
    assert all(map(torch.equal, network.scales(), wanted))
    again = made(module, X, target="orin@jetpack-6.0", most=1e-6)
    assert again.weights() == ["FLOAT"] * 3, "blocks are the floats that they stand for"


def test_weights_in_four_bits_follow_new_weights() -> None:
    segment = made(Weights(blocks), X).segment
    (constant,) = (c for c in segment.network.constants.values() if c.dtype == "INT4")
    assert constant.recipe is not None
    assert recipes.sources(constant.recipe) == ["four"]
    other = torch.tensor([[1, -1, 7, -8, 0, 3]] * 8, dtype=torch.int8)
    packed = recipes.replay(constant.recipe, {"four": other})
    assert packed.dtype == torch.uint8
    assert packed[:3].tolist() == [0xF1, 0x87, 0x30]


def test_channels_of_activations_are_divided_by_their_scales_first() -> None:
    scales = torch.rand(6, generator=torch.Generator().manual_seed(2)) / 10
    network = made(
        lambda x: torch.fake_quantize_per_channel_affine(
            x, scales, torch.zeros(6, dtype=torch.int32), 1, -128, 127
        ),
        X,
    )
    assert network.kinds["quantize INT8"] == 1
    assert [float(scale) for scale in network.scales()] == [1.0]


def test_a_scale_of_0_stays_in_pytorch() -> None:
    module = Weights(channels)
    module.scale[3] = 0
    with pytest.raises(Exception, match="TensorRT takes scales above 0 only"):
        made(module, X, most=float("inf"))


def test_a_switch_that_is_off_leaves_the_operator_in_pytorch() -> None:
    off = torch.zeros(1)
    function = torch.ops.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    told = refusals(
        lambda x: function(x, torch.ones(1), torch.zeros(1, dtype=torch.int32), off, -8, 7)[0],
        X,
        target="rtx-4090",
    )
    assert len(told) == 1


def test_open_sizes_are_quantized_alike() -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    network = made(lambda x: fake(x, 0, -128, 127) @ x.T, X, dynamic=(({0: batch},),))
    assert network.kinds["quantize INT8"] == 1
