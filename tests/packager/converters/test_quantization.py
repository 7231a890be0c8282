# SPDX-License-Identifier: Apache-2.0
"""Quantizing and dequantizing against their parts in PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    dynamic,
    f32,
    given,
    kinds,
    refusal,
    weight,
)
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE


def scales(*shape: int) -> object:
    """Scales as a model has them: parameters above 0."""
    return weight(f32(*shape, low=0.01, high=0.1))


STORED = weight(given([[1, -2, 3, -128], [127, 5, -6, 0]], torch.int8))
FEW = weight(given([[1, -2, 3, -8], [7, 5, -6, 0], [4, 3, -1, -7]], torch.int8))
EIGHTH = weight(given([[0.5, -448, 3], [2**-9, 16, -1]], torch.float8_e4m3fn))
CASES = [
    Case(FAKE_QUANTIZE, f32(3, 5), scales(), None, "INT8"),
    Case(FAKE_QUANTIZE, dynamic(f32(3, 5), {0: (1, 3, 6)}), scales(), None, "INT8"),
    Case(FAKE_QUANTIZE, f32(), scales(), None, "INT8"),
    Case(FAKE_QUANTIZE, bf16(3, 5), scales(), None, "INT8"),
    Case(FAKE_QUANTIZE, weight(f32(4, 3, 2, 2)), scales(4), 0, "INT8"),
    Case(FAKE_QUANTIZE, dynamic(f32(3, 5, 2), {0: (1, 3, 6)}), scales(5), 1, "INT8"),
    Case(FAKE_QUANTIZE, weight(f32(4, 6)), scales(4, 2), 1, "INT4"),
    Case(FAKE_QUANTIZE, weight(f32(6, 3)), scales(2, 3), 0, "INT4"),
    Case(DEQUANTIZE, STORED, scales(), None, "INT8", torch.float32),
    Case(DEQUANTIZE, STORED, scales(2), 0, "INT8", torch.float16),
    Case(DEQUANTIZE, STORED, scales(4), 1, "INT8", torch.float32),
    Case(DEQUANTIZE, FEW, scales(3, 2), 1, "INT4", torch.float32),
    Case(DEQUANTIZE, FEW, scales(1, 4), 0, "INT4", torch.float16),
    Case(DEQUANTIZE, EIGHTH, scales(2), 0, "FP8", torch.float32),
    Case(DEQUANTIZE, STORED, scales(2, 2), 1, "INT8", torch.float32),
    Case(DEQUANTIZE, STORED, scales(2, 1), 1, "INT8", torch.float16),
    Case(DEQUANTIZE, EIGHTH, scales(2, 3), 1, "FP8", torch.float32),
    Case(FAKE_QUANTIZE, weight(f32(4, 6)), scales(4, 2), 1, "INT8"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_parts(case: Case, check: Checker) -> None:
    check(case)


def test_weights_that_are_stored_take_one_layer() -> None:
    assert kinds(CASES[9]) == ["dequantize"]
    assert kinds(CASES[8], "orin@jetpack-6.0") == ["quantize", "dequantize"]


def test_blocks_of_int8_are_rows_of_a_matrix() -> None:
    blocks = Case(DEQUANTIZE, STORED, scales(2, 2), 1, "INT8", torch.float32)
    assert kinds(blocks) == ["dequantize", "shuffle"]
    assert not {"quantize", "dequantize"} & {*kinds(blocks, "orin@jetpack-6.0")}


def test_what_tensorrt_cannot_scale_stays_in_pytorch() -> None:
    x, one = f32(3, 5), scales()
    assert refusal(FAKE_QUANTIZE, x, f32(), None, "INT8") == (
        "TensorRT takes scales that are known when the engine is built"
    )
    assert refusal(FAKE_QUANTIZE, x, weight(given(0.0)), None, "INT8") == (
        "TensorRT takes scales above 0 only, this one has others"
    )
    assert refusal(FAKE_QUANTIZE, f32(4, 6), scales(4, 2), 1, "INT4") == (
        "TensorRT has block scales for weights only, and these numbers are computed"
    )
    assert refusal(DEQUANTIZE, STORED, scales(1, 4), 0, "INT8", torch.float32) == (
        "blocks of this type have to be along the last dim"
    )
    assert refusal(FAKE_QUANTIZE, x, one, None, "FP8", target="orin") == (
        "Jetson AGX Orin 64GB (SM 8.7) has no FP8"
    )
    assert refusal(DEQUANTIZE, given([1, 2], torch.int8), one, None, "INT8", torch.float32) == (
        "it reads stored numbers that are no constant"
    )
