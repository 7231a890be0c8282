# SPDX-License-Identifier: Apache-2.0
"""Sizes that a model computes in floating point, such as ``int(height * 0.5)``."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions as torch_sympy

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim

_LARGEST_SIZE = 1 << 16
_LARGEST_DENOMINATOR = 1 << 10


def scaled(expression: Any, walk: Callable[[Any], Dim]) -> Dim | None:
    """A rounded multiple of a size in whole numbers, or None if ``expression`` is none.

    ``walk`` answers the size of an inner expression.
    """
    rounding = next((r for kind, r in _ROUNDINGS if isinstance(expression, kind)), None)
    if rounding is None:
        return None
    (inner,) = expression.args
    match inner:
        case torch_sympy.ToFloat():
            return walk(inner.args[0])
        case torch_sympy.IntTrueDiv() if isinstance(inner.args[1], sympy.Integer):
            size, scale = inner.args[0], Fraction(1, int(inner.args[1]))
        case sympy.Mul() if _is_scaling(inner):
            known = whole_ratio(float(inner.args[0]), rounding)
            if known is None:
                return None
            size, scale = inner.args[1].args[0], known
        case _:
            return None
    product = dims.mul(walk(size), scale.numerator)
    if rounding is torch.ceil:
        product = dims.add(product, scale.denominator - 1)
    return dims.floordiv(product, scale.denominator)


@cache
def whole_ratio(
    scale: float, rounding: Callable[[torch.Tensor], torch.Tensor] = torch.floor
) -> Fraction | None:
    """The quotient that scales every size up to 65536 as ``scale`` does in floating point."""
    ratio = Fraction(scale).limit_denominator(_LARGEST_DENOMINATOR)
    sizes = torch.arange(_LARGEST_SIZE)
    wanted = rounding(sizes.double() * scale).long()
    products = sizes * ratio.numerator
    if rounding is torch.ceil:
        products = products + ratio.denominator - 1
    return ratio if torch.equal(products // ratio.denominator, wanted) else None


_ROUNDINGS = (
    (torch_sympy.TruncToInt, torch.floor),
    (torch_sympy.FloorToInt, torch.floor),
    (torch_sympy.CeilToInt, torch.ceil),
)
"""Sizes are never negative, so cutting off a fraction rounds down."""


def _is_scaling(product: sympy.Mul) -> bool:
    return (
        len(product.args) == 2
        and isinstance(product.args[0], sympy.Float)
        and product.args[0] > 0
        and isinstance(product.args[1], torch_sympy.ToFloat)
    )
