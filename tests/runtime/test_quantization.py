# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits are what ``NvInfer.h`` says: divided, rounded half to even, saturated."""

from __future__ import annotations

import pytest
import torch

from trtpack_runtime.errors import NetworkError
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.reference import evaluate
from trtpack_tools.check import check_network
from trtpack_tools.recorder import Recorder

T = torch.Tensor
MANY = torch.cat([torch.linspace(-600, 600, 4801), torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])])


def pair(few: str, x: T, scale: T, axis: int | None = None) -> T:
    """What a number stands for once it is quantized."""
    recorder = Recorder()
    given = recorder.input(Tensor("x", "FLOAT", tuple(x.shape)))
    scales = recorder.constant("FLOAT", tuple(scale.shape), "s")
    attributes = {"output_type": few, "axis": axis}
    (made,) = recorder.add("quantize", {"input": given, "scale": scales}, attributes, name="q")
    attributes = {"output_type": "FLOAT", "axis": axis}
    (back,) = recorder.add("dequantize", {"input": made, "scale": scales}, attributes, name="d")
    network = recorder.finish([back.name])
    check_network(network)
    (answer,) = evaluate(network, {"s": scale}, [x])
    return answer


@pytest.mark.parametrize("scale", [1.0, 0.37, 3.1])
def test_int8_rounds_half_to_even_and_saturates(scale: float) -> None:
    wanted = [max(-128, min(127, round(v))) for v in (MANY / scale).tolist()]
    answer = pair("INT8", MANY, torch.tensor(scale))
    torch.testing.assert_close(answer, torch.tensor(wanted) * torch.tensor(scale), rtol=0, atol=0)


def test_int4_has_a_scale_for_every_block() -> None:
    x = torch.linspace(-9, 9, 24).reshape(2, 12)
    scale = torch.tensor([[0.5, 1, 2], [1, 2, 0.25]])
    wanted = [
        max(-8, min(7, round(float(v / scale[row, column // 4])))) * float(scale[row, column // 4])
        for row in range(2)
        for column, v in enumerate(x[row])
    ]
    assert pair("INT4", x, scale, 1).flatten().tolist() == wanted


def test_e4m3_takes_the_nearest_of_its_numbers_and_saturates() -> None:
    """Its numbers from the definition: 4 bits of exponent with bias 7, 3 of fraction."""
    finite = [m / 8 * 2**-6 for m in range(8)]
    finite += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)][:-1]
    assert max(finite) == 448
    answer = pair("FP8", MANY, torch.tensor(1.0))
    for given, have in zip(MANY.tolist(), answer.tolist(), strict=True):
        nearest = min(finite, key=lambda number: abs(number - abs(given)))
        assert abs(abs(given) - abs(have)) == abs(abs(given) - nearest)
        assert have * given >= 0


def test_an_odd_number_of_four_bits_fills_the_last_byte_by_half() -> None:
    recorder = Recorder()
    stored = recorder.constant("INT4", (1, 3), "w")
    scale = recorder.constant("FLOAT", (1, 1), "s")
    operands = {"input": stored, "scale": scale}
    (y,) = recorder.add("dequantize", operands, {"output_type": "FLOAT", "axis": 1}, name="y")
    network = recorder.finish([y.name])
    packed, one = torch.tensor([0x8F, 0x07], dtype=torch.uint8), torch.ones(1, 1)
    check_network(network, {"w": packed, "s": one})
    assert evaluate(network, {"w": packed, "s": one}, [])[0].tolist() == [[-1.0, -8.0, 7.0]]
    with pytest.raises(NetworkError, match="wanted 2 bytes stored as 'w', got 3"):
        check_network(network, {"w": torch.zeros(3, dtype=torch.uint8), "s": one})


@pytest.mark.parametrize(
    ("shape", "scales", "axis", "few", "message"),
    [
        ((), (), None, "INT8", "wanted rank 1 or more"),
        ((2, 6), (2,), None, "INT8", "a scale for every channel needs it"),
        ((2, 6), (3,), 0, "INT8", "scale"),
        ((2, 6), (2, 2), 1, "INT8", "wanted rank 0 or 1"),
        ((2, 6), (2,), 0, "INT4", "wanted rank 2"),
        ((2, 6), (2, 4), 1, "INT4", "one for each block of one of the last dims"),
        ((4, 2, 6), (2, 2, 6), 0, "INT4", "one for each block of one of the last dims"),
        ((2, 6), (2,), 0, "FLOAT", "attribute output_type: got FLOAT"),
    ],
)
def test_scales_that_do_not_fit_are_refused(
    shape: tuple[int, ...], scales: tuple[int, ...], axis: int | None, few: str, message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        pair(few, torch.zeros(shape), torch.ones(scales), axis)


def test_int4_does_not_cross_a_networks_border() -> None:
    given = Tensor("x", "INT4", (2, 2))
    with pytest.raises(NetworkError, match="INT4 is no type of a network"):
        check_network(Network((given,), ("x",), {}, (), {}))


def test_four_bits_are_cast_by_no_layer() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 2)))
    with pytest.raises(NetworkError, match="INT4 comes from quantize, goes to dequantize"):
        recorder.add("cast", {"input": x}, {"to_type": "INT4"}, name="y")
