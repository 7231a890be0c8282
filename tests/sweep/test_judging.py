# SPDX-License-Identifier: Apache-2.0
"""The sweep finds wrong answers, and lets pass what is as good as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from tests.sweep.judging import difference
from tests.sweep.samples import Sample, samples

T = torch.Tensor


def sample(call: Callable[[Sequence[T]], list[T]], *tensors: T, operator: str = "op") -> Sample:
    return Sample(operator, "float32", 0, tensors, call, "")


def identity(tensors: Sequence[T]) -> list[T]:
    return list(tensors)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("have", "want", "found"),
    [
        (torch.tensor([1, 3]), torch.tensor([1, 2]), "output 0: 1 of 2 differ: 3 for 2"),
        (torch.tensor([True]), torch.tensor([False]), "output 0: 1 of 1 differ"),
        (torch.zeros(1, 2), torch.zeros(2), "output 0: wanted float32[2], got float32[1, 2]"),
        (torch.zeros(2).half(), torch.zeros(2), "output 0: wanted float32[2], got float16[2]"),
        (torch.tensor([1.1]), torch.tensor([1.0]), "output 0: 1 of 1 differ: 1.1 for 1"),
        (torch.tensor([INF]), torch.tensor([NAN]), "output 0: 1 of 1 differ: inf for nan"),
        (torch.tensor([1.0]), torch.tensor([INF]), "output 0: 1 of 1 differ: 1 for inf"),
    ],
    ids=str,
)
def test_what_differs_is_found(have: T, want: T, found: str) -> None:
    assert difference(sample(identity, want), [have], [want]) == found


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (torch.tensor([NAN, INF, -INF]), torch.tensor([NAN, INF, -INF])),
        (torch.tensor([1.000001]), torch.tensor([1.0])),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
    ],
    ids=str,
)
def test_what_agrees_is_right(have: T, want: T) -> None:
    assert difference(sample(identity, want), [have], [want]) is None


def test_an_answer_nearer_to_float64_than_pytorch_is_right() -> None:
    product = sample(lambda tensors: [tensors[0].cumprod(0)], torch.full((12,), 1.7).half())
    (want,) = product.answers()
    (exact,) = product.answers([product.tensors[0].double()])
    have = want.clone()
    have[-1] += 2 * (exact[-1] - want[-1].double()).half()
    assert difference(product, [have], [want]) is None
    have[-1] = want[-1] * 1.2
    assert difference(product, [have], [want]) is not None


def test_float64_takes_the_place_of_a_type_that_is_an_argument_too() -> None:
    halves = next(s for s in samples("linspace", "float16") if "(4.3, -3, 50," in s.text)
    (want,), (exact,) = halves.answers(), halves.answers_in_float64()
    assert (want.dtype, exact.dtype) == (torch.float16, torch.float64)
    assert difference(halves, [exact.half()], [want]) is None
    assert difference(halves, [want + 0.02], [want]) is not None


def test_a_sample_keeps_its_numbers_when_its_maker_goes_on() -> None:
    tensors = [s.tensors[0] for s in samples("masked.argmin", "float32") if len(s.tensors) == 1]
    matrices = [tensor for tensor in tensors if tensor.shape == (3, 5)]
    assert not matrices[0].isnan().any()
    assert matrices[-1].isnan().any()


def test_a_finite_answer_is_right_where_pytorch_overflows_and_float64_does_not() -> None:
    x = torch.tensor([5.0, 300.0]).half()
    overflown = sample(lambda tensors: [(tensors[0] * tensors[0] / tensors[0])], x)
    (want,) = overflown.answers()
    assert want[1].isinf()
    assert difference(overflown, [x], [want]) is None
    assert difference(overflown, [x + torch.tensor([0.0, 8.0]).half()], [want]) is not None
    assert difference(overflown, [x + torch.tensor([1.0, 0.0]).half()], [want]) is not None


def test_any_numbers_will_do_where_pytorch_gives_none() -> None:
    want = torch.zeros(2)
    assert difference(sample(identity, want, operator="empty_like"), [want + 1], [want]) is None
    found = difference(sample(identity, want, operator="empty_like"), [want.long()], [want])
    assert found == "output 0: wanted float32[2], got int64[2]"


def test_indices_may_differ_among_equals_only() -> None:
    x = torch.tensor([[2.0, 1.0, 1.0], [0.0, 0.0, 5.0]])
    want = torch.tensor([[1, 2, 0], [0, 1, 2]])
    other = torch.tensor([[2, 1, 0], [1, 0, 2]])
    twice = torch.tensor([[1, 1, 0], [0, 1, 2]])
    assert difference(sample(identity, x, operator="argsort"), [other], [want]) is None
    assert difference(sample(identity, x, operator="argmax"), [other], [want]) is not None
    assert difference(sample(identity, x, operator="argsort"), [twice], [want]) is not None
    assert difference(sample(identity, x, operator="argsort"), [want.flip(1)], [want]) is not None
