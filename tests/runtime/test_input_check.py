# SPDX-License-Identifier: Apache-2.0
"""What becomes of inputs that are not quite what a method takes."""

from __future__ import annotations

import itertools

import pytest
import torch

from trtpack_runtime import dims
from trtpack_runtime.errors import ConfigError, InputMismatchError
from trtpack_runtime.input_check import InputCheck
from trtpack_runtime.input_conversion import is_lossless
from trtpack_runtime.manifest import TensorSpec

CPU = torch.device("cpu")
ROWS = TensorSpec("x", "FLOAT", (dims.dim("x", 0), 3), (1, 3), (2, 3), (4, 3))
SAME = TensorSpec("y", "INT64", (dims.dim("x", 0),), (1,), (2,), (4,))
SCALE = TensorSpec("scale", "FLOAT", ())
ONE = TensorSpec("one", "FLOAT", (1,))

NUMBERS = {
    torch.bool: [0, 1],
    torch.uint8: [0, 255],
    torch.int8: [-128, 127],
    torch.int16: [-(2**15), 2**15 - 1],
    torch.int32: [-(2**31), 2**31 - 1],
    torch.int64: [-(2**63), 2**63 - 1],
    torch.float16: [65504.0, 2.0**-24],
    torch.bfloat16: [3.3895313892515355e38, 2.0**-133],
    torch.float32: [3.4028234663852886e38, 2.0**-149],
    torch.float64: [1.7976931348623157e308, 5e-324],
}
"""The numbers of each type that are hardest to hold; all odd numbers below too."""


def test_conversion_without_loss_is_what_it_says() -> None:
    for have, want in itertools.permutations(NUMBERS, 2):
        value = torch.tensor(NUMBERS[have], dtype=have)
        is_kept = torch.equal(value.to(want).to(have), value)
        is_kept &= torch.equal(value.double().sign(), value.to(want).double().sign())
        is_kept &= want is not torch.bool
        is_kept &= want.is_floating_point or not have.is_floating_point
        assert is_lossless(have, want) == is_kept, (have, want)


def test_converted_inputs_are_what_the_method_takes() -> None:
    check = InputCheck([ROWS, SAME, SCALE, ONE], CPU, "convert")
    given = [
        torch.ones(2, 3, dtype=torch.float16),
        torch.ones(2, dtype=torch.int32),
        torch.tensor([0.5]),
        torch.tensor(2, dtype=torch.uint8),
    ]
    for _ in range(2):
        x, y, scale, one = check(given)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert (scale.shape, one.shape, one.dtype) == ((), (1,), torch.float32)
        assert (float(scale), float(one)) == (0.5, 2.0)


def test_an_input_that_fits_is_passed_as_it_is() -> None:
    for policy in ("convert", "refuse"):
        check = InputCheck([ROWS], CPU, policy)  # type: ignore[arg-type]  # one of the policies
        x = torch.ones(4, 2).t()[:2, :3]
        for _ in range(3):
            assert check([x])[0] is x


def test_another_device_is_moved_or_refused_with_the_way_to_have_it_moved() -> None:
    check = InputCheck([SCALE], torch.device("meta"), "convert")
    assert check([torch.tensor(1.0)])[0].device.type == "meta"
    with pytest.raises(InputMismatchError, match="it is on cpu, the bundle on meta") as caught:
        InputCheck([SCALE], torch.device("meta"))([torch.tensor(1.0)])
    assert caught.value.hint.endswith('or load with inputs="convert"')


def test_another_gpu_of_the_machine_is_another_device() -> None:
    x = torch.empty((), device="meta")
    InputCheck([SCALE], torch.device("meta"))([x])
    with pytest.raises(InputMismatchError, match="it is on meta, the bundle on cuda:1"):
        InputCheck([SCALE], torch.device("cuda", 1), "convert")([x])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.ones((), dtype=torch.float64), "wanted float32, got float64"),
        (torch.ones((), dtype=torch.int32), "wanted float32, got int32"),
        (torch.ones(2), r"wanted 0 dimensions \[\], got 1 \[2\]"),
        (torch.ones((), device="meta"), "it is on meta"),
        (torch.ones(2).to_sparse(), "wanted a dense tensor"),
        (1.0, "wanted a tensor, got float"),
    ],
)
def test_what_would_lose_something_is_refused(wrong: object, said: str) -> None:
    for policy in ("convert", "refuse"):
        with pytest.raises(InputMismatchError, match=said):
            InputCheck([SCALE], CPU, policy)([wrong])  # type: ignore[arg-type]  # one of the policies


def test_what_was_right_once_does_not_let_wrong_ones_pass() -> None:
    check = InputCheck([ROWS, SAME], CPU)
    good = [torch.ones(2, 3), torch.ones(2, dtype=torch.int64)]
    for _ in range(3):
        check(good)
    for x, y, said in (
        (torch.ones(5, 3), torch.ones(5, dtype=torch.int64), "dimension 0 is 5, wanted 1 to 4"),
        (torch.ones(3, 3), good[1], "dimension 0 is 2, wanted 3"),
        (good[0].double(), good[1], "wanted float32, got float64"),
        (good[0], good[1].int(), "wanted int64, got int32"),
        (good[0].to("meta"), good[1], "it is on meta"),
        (good[0].to_sparse(), good[1], "wanted a dense tensor, got torch.sparse_coo"),
    ):
        for _ in range(2):
            with pytest.raises(InputMismatchError, match=said):
                check([x, y])
    with pytest.raises(InputMismatchError, match="wanted 2 inputs"):
        check(good[:1])
    assert check(good) is good


def test_gradients_end_at_the_inputs() -> None:
    check = InputCheck([SCALE], CPU)
    x = torch.tensor(1.0, requires_grad=True)
    for _ in range(3):
        (got,) = check([x])
        assert not got.requires_grad
        assert got.data_ptr() == x.data_ptr()


def test_no_more_shapes_are_remembered_than_there_is_room_for() -> None:
    check = InputCheck([TensorSpec("x", "FLOAT", (dims.dim("x", 0),))], CPU)
    for size in range(600):
        check([torch.empty(size)])
    assert len(check._good) <= 256


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown input policy 'maybe'"):
        InputCheck([SCALE], CPU, "maybe")  # type: ignore[arg-type]  # refused, as is tested
