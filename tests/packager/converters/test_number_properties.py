# SPDX-License-Identifier: Apache-2.0
"""What holds for numbers of any shape and type: broadcasting, promotion, rounding, reducing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as property_given
from hypothesis import settings
from hypothesis import strategies as st

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    boolean,
    dynamic,
    f32,
    given,
)

aten = torch.ops.aten
TYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
MEETING = (aten.add, aten.mul, aten.div, aten.eq, aten.lt)
ROUNDING = (
    lambda a, b: Case(aten.div.Tensor_mode, a, b, rounding_mode="floor"),
    lambda a, b: Case(aten.div.Tensor_mode, a, b, rounding_mode="trunc"),
    lambda a, b: Case(aten.floor_divide.default, a, b),
    lambda a, b: Case(aten.remainder.Tensor, a, b),
    lambda a, b: Case(aten.fmod.Tensor, a, b),
)
BITS = (
    aten.bitwise_and.Tensor,
    aten.bitwise_or.Tensor,
    aten.bitwise_xor.Tensor,
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_left_shift.Tensor,
)
REDUCING = (
    lambda x, dim, keepdim: Case(aten.sum.dim_IntList, x, dim, keepdim),
    lambda x, dim, keepdim: Case(aten.mean.dim, x, dim, keepdim),
    lambda x, dim, keepdim: Case(aten.amin.default, x, dim, keepdim),
    lambda x, dim, keepdim: Case(aten.logsumexp.default, x, dim, keepdim),
    lambda x, dim, keepdim: Case(aten.linalg_vector_norm.default, x, 2, dim, keepdim),
    lambda x, dim, keepdim: Case(aten.var.correction, x, dim, correction=0, keepdim=keepdim),
)
few_or_many = pytest.mark.parametrize(
    "count", [pytest.param(6, id="few"), pytest.param(100, id="many", marks=pytest.mark.slow)]
)


def _for_all(count: int, strategy: st.SearchStrategy[Case]) -> None:
    """Checks so many cases, the same in every run."""

    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @property_given(strategy)
    def holds(case: Case) -> None:
        Checker()(case)

    holds()


@st.composite
def _broadcast(draw: Any) -> Case:
    """Two or three tensors whose shapes are parts of one, with 1 in places."""
    whole = draw(st.lists(st.integers(1, 4), max_size=4))

    def part() -> tuple[int, ...]:
        behind = whole[draw(st.integers(0, len(whole))) :]
        return tuple(1 if draw(st.booleans()) else size for size in behind)

    op = draw(st.sampled_from((aten.add.Tensor, aten.maximum.default, aten.where.self)))
    condition = (boolean(*part()),) if op is aten.where.self else ()
    return Case(op, *condition, f32(*part()), f32(*part()))


@st.composite
def _promoted(draw: Any) -> Case:
    """A tensor beside another, one without dims, or a Python number."""
    first, second = (draw(st.sampled_from(TYPES)) for _ in range(2))
    op = draw(st.sampled_from(MEETING))
    x = _numbers(first, (3,))
    other = draw(st.sampled_from(("tensor", "no dims", "whole", "fraction", "truth")))
    if other in ("tensor", "no dims"):
        shape = (3,) if other == "tensor" else ()
        sides = (x, _numbers(second, shape))
        case = Case(op.Tensor, *(sides if draw(st.booleans()) else reversed(sides)))
    else:
        case = Case(op.Scalar, x, {"whole": 3, "fraction": 1.5, "truth": True}[other])
    return case.float32_only("the types are the point")


@st.composite
def _rounded(draw: Any) -> Case:
    """Whole numbers of either sign divided by others that are not 0."""
    dtype = draw(st.sampled_from((torch.int64, torch.int32)))
    limit = 2**40 if dtype == torch.int64 else 2**31 - 1
    near, far = st.integers(-20, 20), st.integers(-limit, limit)
    a = draw(st.lists(near | far, min_size=4, max_size=4))
    b = draw(st.lists((near | far).filter(bool), min_size=4, max_size=4))
    return draw(st.sampled_from(ROUNDING))(given(a, dtype), given(b, dtype))


@st.composite
def _bits(draw: Any) -> Case:
    """Bits of numbers that 32 bits hold, shifted by counts in and out of range."""
    dtype = draw(st.sampled_from((torch.int64, torch.int32)))
    words = st.integers(-(2**31), 2**31 - 1)
    op = draw(st.sampled_from(BITS if dtype == torch.int32 else BITS[:-1]))
    others = st.integers(-2, 34) if "shift" in str(op) else words
    sides = (draw(st.lists(numbers, min_size=4, max_size=4)) for numbers in (words, others))
    return Case(op, *(given(side, dtype) for side in sides))


@st.composite
def _reduced(draw: Any) -> Case:
    """Some dims of a tensor, counted from either end; some sizes vary."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    open_size = draw(st.integers(2, 5))  # equal sizes vary together
    varying = {d: (n, n, 2 * n) for d, n in enumerate(shape) if n == open_size}
    rank = len(shape)
    chosen = draw(st.sets(st.integers(0, rank - 1), min_size=1))
    dim = [d - rank if draw(st.booleans()) else d for d in sorted(chosen)]
    return draw(st.sampled_from(REDUCING))(dynamic(f32(*shape), varying), dim, draw(st.booleans()))


@few_or_many
def test_shapes_broadcast(count: int) -> None:
    _for_all(count, _broadcast())


@few_or_many
def test_types_meet_as_in_pytorch(count: int) -> None:
    _for_all(count, _promoted())


@few_or_many
def test_whole_numbers_are_rounded_as_in_pytorch(count: int) -> None:
    _for_all(count, _rounded())


@few_or_many
def test_bits_of_whole_numbers(count: int) -> None:
    _for_all(count, _bits())


@few_or_many
def test_any_dims_are_reduced(count: int) -> None:
    _for_all(count, _reduced())


def _numbers(dtype: torch.dtype, shape: tuple[int, ...]) -> Input:
    return boolean(*shape) if dtype == torch.bool else Input(dtype, shape, low=1, high=6)
