# SPDX-License-Identifier: Apache-2.0
"""A sample is right, refused, wrong or untried, for a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests.sweep import table, trying
from tests.sweep.samples import Sample, operators
from tests.sweep.trying import Outcome, Settings, outcomes
from trtpack.converters import registry

aten = torch.ops.aten
T = torch.Tensor
X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 2.0, -1.0]])


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    def tried(call: Callable[..., T], *tensors: T, dynamic: bool = False) -> Outcome:
        def given(values: Sequence[T]) -> list[T]:
            return [call(*values)]

        only = Sample("op", "float32", 0, tensors, given, "(text)")
        monkeypatch.setattr(trying, "samples", lambda *_: iter([only]))
        (outcome,) = outcomes("op", "float32", Settings(builds=0, dynamic=dynamic))
        return outcome

    return tried


def _in_place(x: T) -> T:
    y = x + torch.tensor([1.0, 2.0, 3.0])
    y[0] = 7
    return y.relu_()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("call", "tensors"),
    [
        (lambda x: torch.nn.functional.gelu(x), (X,)),
        (lambda x, w: torch.nn.functional.linear(x, w), (X, X)),
        (_in_place, (X,)),
        (lambda: torch.arange(5), ()),
    ],
    ids=["one input", "a weight", "in place", "no tensor"],
)
def test_right(tried: Any, call: Any, tensors: tuple[T, ...], dynamic: bool) -> None:
    assert tried(call, *tensors, dynamic=dynamic) == Outcome(
        "op", "float32", 0, "right", "", "(text)"
    )


def test_refused(tried: Any) -> None:
    found = tried(lambda x: torch.linalg.qr(x).Q, X)
    assert found.state == "refused"
    assert found.reason.startswith("aten.linalg_qr: TensorRT has no layer that factors matrices")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (torch.rand_like, "answers random numbers"),
        (lambda x: x + int(x.sum()) if x.sum() > 0 else x, "cannot be traced"),
    ],
    ids=["random", "control flow"],
)
def test_untried(tried: Any, call: Any, why: str) -> None:
    found = tried(call, X)
    assert (found.state, found.reason[: len(why)]) == ("untried", why)


def test_a_complex_tensor_is_not_tried(tried: Any) -> None:
    assert tried(torch.real, X.to(torch.complex64)).reason == "takes a complex tensor"


def test_a_wrong_converter_is_found(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cosine = registry.find(aten.cos.default)
    monkeypatch.setitem(registry._REGISTRY, "aten::sin", cosine)
    found = tried(torch.sin, X)
    assert found.state == "wrong"
    assert found.reason.startswith("output 0: 6 of 6 differ: 0.5403")


def test_an_error_of_the_product_is_wrong(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ctx: Any, self: Any) -> Any:
        raise ZeroDivisionError("a bug")

    made = registry.Converter("aten::sin", broken, None)
    monkeypatch.setitem(registry._REGISTRY, "aten::sin", made)
    assert tried(torch.sin, X).reason.startswith("ZeroDivisionError: a bug")


def test_a_row_counts_and_names_the_main_reasons() -> None:
    found = [
        Outcome("op", "float32", 0, "right"),
        Outcome("op", "float32", 1, "refused", "rare"),
        Outcome("op", "int64", 0, "refused", "often"),
        Outcome("op", "int64", 1, "refused", "often"),
        Outcome("op", "bool", 0, "wrong", "numbers", "(x)"),
        Outcome("op", "bool", 1, "untried", "random"),
    ]
    (row,) = table.rows(found)
    assert (row.tried, row.states["right"], row.refused, row.wrong) == (5, 1, "often", "numbers")
    assert "wrong: op bool #0(x): numbers" in table.text([row], found)


def test_reading_pytorchs_samples_leaves_its_flags_free() -> None:
    operators()
    assert not torch.backends.flags_frozen()
