# SPDX-License-Identifier: Apache-2.0
"""Convolutions against eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    bf16,
    dynamic,
    f32,
    kinds,
    refusal,
    weight,
)

aten = torch.ops.aten


def x(*shape: int) -> Input:
    return f32(*shape, low=-1, high=1)


def w(*shape: int) -> Input:
    return weight(f32(*shape, low=-0.5, high=0.5))


def conv(input: Input, kernel: Input, bias: Input | None = None, **options: Any) -> Case:
    n = len(kernel.shape) - 2
    values = {
        "stride": [1] * n,
        "padding": [0] * n,
        "dilation": [1] * n,
        "transposed": False,
        "output_padding": [0] * n,
        "groups": 1,
        **options,
    }
    return Case(aten.convolution.default, input, kernel, bias, *values.values())


def deconv(input: Input, kernel: Input, bias: Input | None = None, **options: Any) -> Case:
    return conv(input, kernel, bias, transposed=True, **options)


IMAGE, LINE, VOLUME = x(2, 4, 9, 7), x(2, 4, 9), x(1, 4, 5, 6, 4)
ANY_IMAGE = dynamic(x(2, 4, 9, 7), {0: (1, 2, 4), 2: (5, 9, 12), 3: (4, 7, 8)})
ANY_LINE = dynamic(LINE, {0: (1, 2, 4), 2: (5, 9, 12)})

CASES = [
    conv(IMAGE, w(6, 4, 3, 3), w(6)),
    conv(IMAGE, w(6, 4, 3, 2), stride=[2, 1], padding=[1, 0], dilation=[1, 2]),
    conv(IMAGE, w(6, 4, 1, 1), w(6), stride=[2]),
    conv(IMAGE, w(6, 2, 3, 3), w(6), groups=2, padding=[1, 1]),
    conv(IMAGE, w(4, 1, 3, 3), groups=4, padding=[2, 2]),
    conv(ANY_IMAGE, w(6, 4, 3, 3), w(6), stride=[2, 2], padding=[1, 1]),
    conv(IMAGE, x(6, 4, 3, 3), x(6)),
    conv(IMAGE, w(6, 4, 3, 3), x(6)),
    conv(LINE, w(6, 4, 3), w(6), stride=[2], padding=[1]),
    conv(LINE, w(4, 1, 3), w(4), groups=4, dilation=[2]),
    conv(ANY_LINE, w(6, 4, 3), w(6), padding=[1]),
    conv(LINE, x(6, 4, 3), x(6)),
    conv(VOLUME, w(6, 4, 3, 2, 1), w(6), stride=[1, 2, 1], padding=[1, 0, 0]),
    conv(bf16(2, 4, 5, 5, low=-1, high=1), weight(bf16(3, 4, 3, 3, low=-0.5, high=0.5))),
    deconv(IMAGE, w(4, 6, 3, 3), w(6)),
    deconv(
        bf16(2, 3, 5, 5, low=-1, high=1),
        weight(bf16(3, 4, 3, 3, low=-0.5, high=0.5)),
        weight(bf16(4, low=-0.5, high=0.5)),
    ),
    deconv(bf16(2, 3, 5, low=-1, high=1), bf16(3, 4, 3, low=-0.5, high=0.5), bf16(4)),
    deconv(IMAGE, w(4, 6, 3, 3), w(6), stride=[2, 2], padding=[1, 1]),
    deconv(IMAGE, w(4, 6, 3, 3), w(6), stride=[2, 2], padding=[1, 1], output_padding=[1, 1]),
    deconv(IMAGE, w(4, 6, 2, 2), w(6), stride=[3, 2], output_padding=[2, 1]),
    deconv(IMAGE, w(4, 3, 3, 3), w(6), groups=2, stride=[2, 1]),
    deconv(IMAGE, w(4, 1, 3, 3), groups=4, stride=[2, 2], padding=[1, 1]),
    deconv(IMAGE, w(4, 6, 3, 2), w(6), dilation=[2, 3], padding=[1, 1]),
    deconv(IMAGE, w(4, 6, 3, 2), w(6), dilation=[2, 3], stride=[2, 3], padding=[1, 0]),
    deconv(IMAGE, w(4, 3, 3, 3), groups=2, dilation=[2, 2], stride=[2, 2], output_padding=[1, 1]),
    deconv(IMAGE, x(4, 6, 3, 3), x(6), stride=[2, 2]),
    deconv(IMAGE, x(4, 6, 3, 3), dilation=[2, 2], stride=[2, 3], padding=[1, 0]),
    deconv(ANY_IMAGE, w(4, 6, 4, 4), w(6), stride=[2, 2], padding=[1, 1]),
    deconv(ANY_IMAGE, w(4, 6, 2, 2), stride=[3, 3], output_padding=[1, 2]),
    deconv(LINE, w(4, 6, 3), w(6), stride=[2], padding=[1], output_padding=[1]),
    deconv(ANY_LINE, w(4, 6, 4), w(6), stride=[4]),
    deconv(VOLUME, w(4, 6, 2, 2, 2), w(6), stride=[2, 2, 2]),
    deconv(VOLUME, w(4, 3, 3, 3, 3), groups=2, dilation=[1, 2, 1], stride=[2, 2, 1]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_convolution_is_one_layer() -> None:
    assert kinds(conv(IMAGE, w(6, 4, 3, 3), w(6))) == ["convolution_nd"]
    assert kinds(deconv(IMAGE, w(4, 6, 3, 3), w(6))) == ["deconvolution_nd"]


def test_a_dilated_kernel_is_spread_beforehand() -> None:
    case = deconv(IMAGE, w(4, 6, 3, 2), dilation=[2, 2], stride=[2, 2])
    assert kinds(case) == ["deconvolution_nd"]


def test_whole_numbers_stay_in_pytorch() -> None:
    case = conv(Input(torch.int64, (1, 2, 4, 4)), Input(torch.int64, (2, 2, 3, 3)))
    assert refusal(case.op, *case.args) == ("TensorRT computes this in floats only, got int64")


@pytest.mark.parametrize("dim", [0, 1])
def test_kernels_of_unknown_size_are_refused(dim: int) -> None:
    kernel = dynamic(f32(3, 4, 3, 3), {dim: (2, 3 + dim, 8)})
    image = dynamic(f32(2, 4, 5, 5), {1: (2, 4, 8)} if dim else {})
    arguments = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    reason = "the number of channels or the kernel's size is dynamic"
    assert refusal(aten.convolution.default, image, kernel, *arguments) == reason
