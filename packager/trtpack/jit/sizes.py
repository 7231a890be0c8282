# SPDX-License-Identifier: Apache-2.0
"""Which values the sizes of a graph may have that an engine is built for.

Dynamo says of a size that varies little more than that it does. An engine needs its most, so it
begins with the power of two above twice the size that was seen; a call that exceeds it makes the
graph again, for more. Where Dynamo knows the most itself (``mark_dynamic(max=)``), that is it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx

from trtpack.options import SizeRange

Grown = Mapping[str, int]
"""The largest value of a size's symbol that a call had."""

_MOST = 1 << 31
_FEW = 16
"""No engine is built for fewer than so many."""


@dataclass(frozen=True)
class Limit:
    """What one axis of one of the engines' inputs may be, and the symbol that it is."""

    input: int
    axis: int
    symbol: str
    least: int
    most: int


def ranges_of(module: fx.GraphModule, grown: Grown) -> dict[str, SizeRange]:
    """Every symbol's range, of those that the inputs' shapes have."""
    found: dict[str, SizeRange] = {}
    for node in module.graph.find_nodes(op="placeholder"):
        for size in node.meta["val"].shape:
            for symbol, environment in _symbols(size):
                if str(symbol) not in found:
                    found[str(symbol)] = _range(symbol, environment, grown.get(str(symbol), 0))
    return found


def limits_of(module: fx.GraphModule, ranges: Mapping[str, SizeRange]) -> tuple[Limit, ...]:
    """The axes to look at before a call, one for each symbol."""
    limits: dict[str, Limit] = {}
    for number, node in enumerate(module.graph.find_nodes(op="placeholder")):
        for axis, size in enumerate(node.meta["val"].shape):
            if not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
                continue
            name = str(size.node.expr)
            allowed = ranges[name]
            limits.setdefault(name, Limit(number, axis, name, allowed.minimum, allowed.maximum))
    return tuple(limits.values())


def _symbols(size: Any) -> Iterator[tuple[sympy.Symbol, Any]]:
    if isinstance(size, torch.SymInt):
        for symbol in sorted(size.node.expr.free_symbols, key=str):
            yield symbol, size.node.shape_env


def _range(symbol: sympy.Symbol, environment: Any, seen: int) -> SizeRange:
    known = environment.var_to_range[symbol]
    hint = int(environment.backed_var_to_val.get(symbol, 0)) or max(int(known.lower), 1)
    low = min(max(int(known.lower), 1), hint)
    most = max(hint, seen)
    if known.upper.is_Integer and int(known.upper) < _MOST:
        return SizeRange(low, hint, max(int(known.upper), most))
    return SizeRange(low, hint, max(1 << (2 * most - 1).bit_length(), _FEW))
