# SPDX-License-Identifier: Apache-2.0
"""A method's calling convention, made ready: nested arguments to tensors, outputs to their nesting.

What most models take, tensors by position or by name, goes through without a look at the structure;
everything else is left to ``treespec.py``, which says what is wrong with a call. Nothing here needs
PyTorch.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import treespec
from .errors import BundleError
from .records import named_tuple, record

Build = Callable[[Sequence[Any]], Any]
"""The nested value with these leaves."""


class Convention:
    """How one method is called and what it answers.

    Args:
        in_tree, out_tree: the structures of ``treespec.py``.
        inputs: which leaves of the arguments are tensors: their names, None for others.
        outputs: how many leaves the answer has.
    """

    def __init__(
        self, in_tree: Any, out_tree: Any, inputs: Sequence[str | None], outputs: int
    ) -> None:
        self._in_tree, self._out_tree = in_tree, out_tree
        self._is_tensor = tuple(name is not None for name in inputs)
        self._names, self._positions = _plain(in_tree)
        if len(self._names) != len(inputs) or not all(self._is_tensor):
            self._names, self._positions = (), -1
        self.answer = _builder(out_tree, outputs)
        """Nests the outputs; BundleError where they do not fill the structure."""

    def tensors(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """The arguments that are tensors, in order.

        Raises:
            InputMismatchError: the arguments are nested or named in another way.
        """
        names, given = self._names, len(args)
        if given <= self._positions and given + len(kwargs) == len(names):
            if not kwargs:
                return args
            try:
                return [*args, *[kwargs[name] for name in names[given:]]]
            except KeyError:
                pass
        leaves = treespec.flatten_call(self._in_tree, args, kwargs)
        return [x for x, wanted in zip(leaves, self._is_tensor, strict=True) if wanted]


def _plain(tree: Any) -> tuple[tuple[str, ...], int]:
    """The names of a call's arguments in order and how many of them may be given by position,
    where none is nested."""
    match tree:
        case {"call": {"parameters": list(names), "args": list(args), "kwargs": list(kwargs)}}:
            parts = [*args, *(part for _, part in kwargs)]
            if not parts or any(part != treespec.LEAF for part in parts):
                return (), -1
            first = names[: len(args)] if names else [f"args[{i}]" for i in range(len(args))]
            wanted = [*first, *(name for name, _ in kwargs)]
            in_order = names[: len(wanted)] == wanted
            return tuple(wanted), len(wanted) if in_order else len(args)
    return (), -1


def _builder(tree: Any, count: int) -> Build:
    try:
        build, used = _compiled(tree, 0)
    except BundleError:
        used = -1
    if used != count:
        return lambda leaves: treespec.unflatten(tree, leaves)
    return build


def _compiled(tree: Any, at: int) -> tuple[Build, int]:
    """What builds the part of a structure whose leaves begin at ``at``, and where they end."""
    match tree:
        case "*" | {"value": _}:
            return (lambda leaves: leaves[at]), at + 1
        case {"tuple": parts}:
            items, end = _all(parts, at)
            return (lambda leaves: tuple([item(leaves) for item in items])), end
        case {"list": parts}:
            items, end = _all(parts, at)
            return (lambda leaves: [item(leaves) for item in items]), end
        case {"dict": fields}:
            named, end = _fields(fields, at)
            return named, end
        case {"ordered_dict": fields}:
            named, end = _fields(fields, at)
            return (lambda leaves: collections.OrderedDict(named(leaves))), end
        case {"namedtuple": fields, "class": str(name)}:
            named, end = _fields(fields, at)
            return (lambda leaves: named_tuple(name, named(leaves))), end
        case {"record": fields, "class": str(name)}:
            named, end = _fields(fields, at)
            return (lambda leaves: record(name, named(leaves))), end
    raise BundleError(f"malformed structure: {tree!r}", hint="build the bundle again")


def _all(parts: Sequence[Any], at: int) -> tuple[list[Build], int]:
    items = []
    for part in parts:
        item, at = _compiled(part, at)
        items.append(item)
    return items, at


def _fields(fields: Sequence[Sequence[Any]], at: int) -> tuple[Callable[..., dict[Any, Any]], int]:
    keys = [key for key, _ in fields]
    items, end = _all([part for _, part in fields], at)
    pairs = list(zip(keys, items, strict=True))
    return (lambda leaves: {key: item(leaves) for key, item in pairs}), end
