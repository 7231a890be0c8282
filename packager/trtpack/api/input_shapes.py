# SPDX-License-Identifier: Apache-2.0
"""``trtpack.Input``: an input by its shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..inputs import INPUT_DTYPES
from ..options import DynamicDim, InputSpec, SizeRange
from ..spelling import nearest

if TYPE_CHECKING:
    import torch

Dimension = int | DynamicDim | Sequence[int]
"""A size, a dynamic dimension, or the three sizes of one."""

_HINT = "give shape=(1, 3, 224, 224), or min_shape, opt_shape and max_shape of as many sizes"


def Input(
    shape: Sequence[Dimension] | None = None,
    *,
    min_shape: Sequence[int] | None = None,
    opt_shape: Sequence[int] | None = None,
    max_shape: Sequence[int] | None = None,
    dtype: torch.dtype | str | None = None,
    name: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> InputSpec:
    """One input of a model, whose values are drawn.

    Args:
        shape: sizes; a dynamic one is (minimum, optimum, maximum) or a ``DynamicDim``.
        min_shape: in the place of ``shape``, with ``opt_shape`` and ``max_shape``: the smallest,
            the most usual and the largest. Dimensions of one place and range, such as every input's
            batch, are the same.
        opt_shape: see there.
        max_shape: see there.
        dtype: its type; that of the model's own example input where it is not said, else float32.
        name: a parameter of ``forward``; None for the next position.
        low: the least value that is drawn.
        high: values that are drawn are below it.

    Raises:
        ConfigError: shapes that do not fit together, an unknown type, or a range of no values.
    """
    for given in (shape, min_shape, opt_shape, max_shape):
        if not isinstance(given, Sequence | None):
            raise ConfigError(f"a shape is {given!r}, wanted sizes", hint=_HINT)
    if shape is not None and min_shape is opt_shape is max_shape is None:
        sizes = tuple(_dimension(size) for size in shape)
    elif shape is not None or min_shape is None or opt_shape is None or max_shape is None:
        raise ConfigError("an Input has one shape, or three", hint=_HINT)
    elif len({len(min_shape), len(opt_shape), len(max_shape)}) > 1:
        raise ConfigError("min_shape, opt_shape and max_shape differ in length", hint=_HINT)
    else:
        sizes = tuple(map(_dimension, zip(min_shape, opt_shape, max_shape, strict=True)))
    _check_range(low, high)
    return InputSpec(name, sizes, _dtype(dtype), low, high)


def _check_range(low: float | None, high: float | None) -> None:
    if low is high is None:
        return
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise ConfigError(
            f"values are to lie from {low} to below {high}", hint="give low, and a larger high"
        )


def _dimension(size: Dimension) -> int | DynamicDim:
    if isinstance(size, DynamicDim):
        return size
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * 3
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sizes)
    if len(sizes) != 3 or not whole or list(sizes) != sorted(sizes):
        raise ConfigError(
            f"a dimension is {size!r}, wanted a size, or minimum <= optimum <= maximum", hint=_HINT
        )
    return sizes[0] if sizes[0] == sizes[2] else DynamicDim(SizeRange(*sizes))


def _dtype(dtype: torch.dtype | str | None) -> str | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in INPUT_DTYPES:
        near = nearest(name, INPUT_DTYPES)
        meant = f"did you mean {near}? " if near else ""
        raise ConfigError(f"unknown type {name!r}", hint=f"{meant}types: {', '.join(INPUT_DTYPES)}")
    return name
