# SPDX-License-Identifier: Apache-2.0
"""The evaluator agrees with each computation written independently of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.runtime.layer_cases import TOLERANCE, VARIANTS, Case, x
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import InputMismatchError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.reference import evaluate
from trtpack_runtime.reference.registry import KERNELS
from trtpack_tools.recorder import Recorder


def test_every_kind_has_an_evaluator() -> None:
    assert set(KERNELS) == set(KINDS)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("case", "dtype"), VARIANTS, ids=str)
def test_numbers(case: Case, dtype: str, dynamic: bool) -> None:
    network = case.network(dtype, dynamic=dynamic)
    values = case.values(dtype)
    inputs = {tensor.name: values[tensor.name] for tensor in network.inputs}
    answers = evaluate(network, values, inputs)
    for answer, expected in zip(answers, case.answers(values), strict=True):
        if answer.is_floating_point():
            tolerance = TOLERANCE[dtype if dtype in TOLERANCE else "FLOAT"]
            torch.testing.assert_close(
                answer.float(), expected.float(), rtol=tolerance, atol=tolerance, equal_nan=True
            )
        else:
            assert torch.equal(answer.long(), expected.long())


def test_sizes_become_values() -> None:
    recorder = Recorder()
    n = dim("x", 0)
    recorder.input(Tensor("x", "FLOAT", (n, 3)))
    (y,) = recorder.add(
        "fill",
        {},
        {"shape": (n,), "op": "LINSPACE", "output_type": "INT64", "alpha": n * 2, "beta": (n,)},
        name="y",
    )
    (answer,) = evaluate(recorder.finish([y.name]), {}, [torch.zeros(4, 3)])
    assert answer.tolist() == [8, 12, 16, 20]


def test_reading_beyond_the_end_gives_zero() -> None:
    case = Case(
        "gather",
        {"input": x(3, 2), "indices": x(2, dtype="INT32", values=(1, 5))},
        {"mode": "DEFAULT", "axis": 0},
        lambda **_: None,
    )
    values = case.values("FLOAT")
    (answer,) = evaluate(case.network("FLOAT", dynamic=False), {}, values)
    assert torch.equal(answer, torch.stack([values["input"][1], torch.zeros(2)]))


def _chain() -> Network:
    recorder = Recorder()
    tensor = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 3)))
    for op in ("EXP", "NEG", "ABS"):
        (tensor,) = recorder.add("unary", {"input": tensor}, {"op": op}, name=op.lower())
    return recorder.finish([tensor.name])


def test_values_are_kept_on_demand() -> None:
    kept: dict[str, torch.Tensor] = {}
    sample = torch.rand(2, 3)
    evaluate(_chain(), {}, [sample], keep=kept)
    assert list(kept) == ["exp", "neg", "abs"]
    assert torch.equal(kept["exp"], sample.exp())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "wanted the inputs x, got 0"),
        ({"y": torch.zeros(2, 3)}, "wanted the inputs x, got 1"),
        ([torch.zeros(2, 4)], r"wanted x: FLOAT\[x.0, 3\], got FLOAT\[2, 4\]"),
        ([torch.zeros(2, 3).half()], r"got HALF\[2, 3\]"),
    ],
)
def test_a_wrong_input_is_refused(inputs: Any, message: str) -> None:
    with pytest.raises(InputMismatchError, match=message):
        evaluate(_chain(), {}, inputs)
