# SPDX-License-Identifier: Apache-2.0
"""Pairs of elements along the last dim: (first half, second half), or neighbours."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph import insert
from .match import arguments, calls, fixed, number
from .sizes import sizes

aten = torch.ops.aten

_BY_ELEMENT = (aten.cos.default, aten.sin.default, aten._to_copy.default)


@dataclass(frozen=True)
class Joined:
    """All the pairs of ``first`` and ``second``, in one row."""

    first: Any
    second: Any
    interleaved: bool


def joined(node: Any) -> Joined | None:
    """What is joined to pairs: by ``cat`` to halves, by ``stack`` and a reshape to neighbours."""
    if calls(node, (aten.cat.default,)):
        parts, interleaved, along = node.args[0], False, _axis(node, 1)
    elif calls(node, (aten.reshape.default,)) and calls(node.args[0], (aten.stack.default,)):
        stack = node.args[0]
        if not _flattens(stack, node):
            return None
        parts, interleaved, along = stack.args[0], True, _axis(stack, 1) - 1
    else:
        return None
    if len(parts) != 2 or along != node.meta["val"].dim() - 1:
        return None
    widths = {sizes(part.meta["val"].shape[-1:]) for part in parts}
    first, second = parts
    return Joined(first, second, interleaved) if len(widths) == 1 else None


def halves_of(first: Any, second: Any, *, interleaved: bool) -> fx.Node | None:
    """The ``x`` whose pairs ``first`` and ``second`` are taken from, in that order."""
    found = [_taken(part, interleaved) for part in (first, second)]
    if found[0] is None or found[1] is None or found[0][0] is not found[1][0]:
        return None
    return found[0][0] if [which for _, which in found] == [0, 1] else None  # type: ignore[misc]  # none is None


def part(graph: fx.Graph, node: fx.Node, *, interleaved: bool) -> fx.Node:
    """One of each pair of a row whose pairs are ``repeated``."""
    last = node.meta["val"].dim() - 1
    width = node.meta["val"].shape[-1]
    bounds = (0, width, 2) if interleaved else (0, width // 2)
    return insert(graph, node, aten.slice.Tensor, node, last, *bounds)


def repeated(node: Any, *, interleaved: bool) -> bool:
    """Whether both of every pair are known to be equal, whatever the weights are."""
    if not isinstance(node, fx.Node) or not node.meta["val"].dim():
        return False
    constant = fixed(node)
    if constant is not None:
        first, second = _pairs(constant, interleaved)
        return torch.equal(first, second)
    whole = joined(node)
    if whole is not None and whole.first is whole.second:
        return whole.interleaved == interleaved
    if interleaved and _doubles(node):
        return True
    return repeated(_source_of_rows(node), interleaved=interleaved)


def _pairs(x: torch.Tensor, interleaved: bool) -> tuple[torch.Tensor, ...]:
    if x.shape[-1] % 2:
        return x[..., :1], x[..., 1:]
    seen = x.unflatten(-1, (-1, 2) if interleaved else (2, -1))
    return torch.unbind(seen, -1 if interleaved else -2)


def _doubles(node: fx.Node) -> bool:
    """Whether every element stands twice: in a new last dim of 2, flattened again."""
    wide = node.args[0] if calls(node, (aten.reshape.default,)) else None
    if not calls(wide, (aten.expand.default,)) or not _flattens(wide, node):
        return False
    narrow, size = (n.meta["val"].shape[-1] for n in (wide.args[0], wide))  # type: ignore[union-attr]  # expand reads a node
    return bool((narrow, size) == (1, 2))


def _flattens(wide: Any, node: fx.Node) -> bool:
    """Whether a reshape joins the last two dims of ``wide``, and only them."""
    before, after = sizes(wide.meta["val"].shape), sizes(node.meta["val"].shape)
    return before[:-2] == after[:-1] and all(isinstance(s, int) for s in before[-2:])


def _source_of_rows(node: fx.Node) -> Any:
    """What a value's rows are made of, each row of one, all elements of it alike."""
    if node.op != "call_function" or not isinstance(node.args[0], fx.Node):
        return None
    source, last = node.args[0], node.meta["val"].dim() - 1
    target = node.target
    if target in _BY_ELEMENT:
        return source
    if target in (aten.mul.Tensor, aten.div.Tensor):
        return source if number(node.args[1]) is not None else None
    if target in (aten.expand.default, aten.reshape.default, aten.unsqueeze.default):
        kept = sizes(source.meta["val"].shape[-1:]) == sizes(node.meta["val"].shape[-1:])
        return source if kept else None
    if target in (aten.slice.Tensor, aten.index_select.default):
        return source if _axis(node, 1) != last else None
    if target is aten.select.int:
        return source if _axis(node, 1) != source.meta["val"].dim() - 1 else None
    if target is aten.index.Tensor:
        return source if len(node.args[1]) < source.meta["val"].dim() else None  # type: ignore[arg-type]  # it is a list
    return source if target is aten.embedding.default else None


def _axis(node: fx.Node, position: int) -> int:
    """The argument that is a dim of the result, from the start; 0 where it is absent."""
    rank = node.meta["val"].dim()
    given: Any = node.args[position] if len(node.args) > position else 0
    return int(given) % int(rank)


def _taken(node: Any, interleaved: bool) -> tuple[fx.Node, int] | None:
    """The row of which a value is one of each pair, and which one."""
    if calls(node, (aten.slice.Tensor,)):
        return _sliced(node, interleaved)
    if calls(node, (aten.select.int,)):
        seen, dim, index = node.args
        return _viewed(seen, int(dim) % seen.meta["val"].dim(), index, interleaved)
    if not calls(node, (operator.getitem,)):
        return None
    source, index = node.args
    if calls(source, (aten.unbind.int,)):
        dim = source.args[1] if len(source.args) > 1 else 0
        return _viewed(source.args[0], dim % source.args[0].meta["val"].dim(), index, interleaved)
    if interleaved or not calls(source, (aten.split.Tensor, aten.split_with_sizes.default)):
        return None
    row, rank = source.args[0], node.meta["val"].dim()
    dim = source.args[2] if len(source.args) > 2 else 0
    halved = node.meta["val"].shape[-1] * 2 == row.meta["val"].shape[-1]
    return (row, index) if dim % rank == rank - 1 and halved else None


def _sliced(node: fx.Node, interleaved: bool) -> tuple[fx.Node, int] | None:
    given = arguments(node)
    row: fx.Node = given["input"]
    width = row.meta["val"].shape[-1]
    if _axis(node, 1) != node.meta["val"].dim() - 1 or not isinstance(width, int) or width % 2:
        return None
    have = range(width)[given["start"] : given["end"] : given["step"]]
    half = width // 2
    for which in (0, 1):
        wanted = range(which, width, 2) if interleaved else range(which * half, (which + 1) * half)
        if have == wanted:
            return row, which
    return None


def _viewed(seen: Any, dim: int, index: Any, interleaved: bool) -> tuple[fx.Node, int] | None:
    """One of each pair of a row that is seen as (..., 2, n) or (..., n, 2)."""
    if not calls(seen, (aten.reshape.default,)) or not _flattens(seen, seen.args[0]):
        return None
    rank = seen.meta["val"].dim()
    if dim != rank - (1 if interleaved else 2) or seen.meta["val"].shape[dim] != 2:
        return None
    return seen.args[0], index % 2
