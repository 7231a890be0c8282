# SPDX-License-Identifier: Apache-2.0
"""How a derived constant follows from the model's parameters, as data that can be replayed.

A recipe is a stored tensor's name, ``{"constant": name}``, or a call of an ATen operator,
``{"op": "aten.mul.Tensor", "args": [...], "kwargs": {...}}``, whose arguments are recipes,
literals, lists, ``{"dtype": name}``, or ``{"float": text}`` for a number that is not finite. New
weights are refitted by replaying it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .dtypes import DTYPES, by_torch
from .errors import BundleError

if TYPE_CHECKING:
    import torch

Recipe = dict[str, Any]


def call(op: Any, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]) -> Recipe:
    """The recipe of ``op(*args, **kwargs)``; recipes among the arguments stay as they are."""
    recipe: Recipe = {"op": str(op), "args": [_encode(a) for a in args]}
    if kwargs:
        recipe["kwargs"] = {k: _encode(v) for k, v in kwargs.items()}
    return recipe


def item(recipe: Recipe, index: int) -> Recipe:
    """The recipe of one result of an operator that answers several."""
    return {"item": index, "of": recipe}


def sources(recipe: Any) -> list[str]:
    """The stored tensors a recipe reads, in order, each once."""
    found: dict[str, None] = {}
    _collect(recipe, found)
    return list(found)


def replay(recipe: Recipe, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Computes a derived constant from the stored tensors it names.

    Raises:
        BundleError: it names a tensor or an operator that is not there.
    """
    try:
        value: torch.Tensor = _replay(recipe, stored).contiguous()
    except KeyError as error:
        raise BundleError(
            f"cannot replay the recipe of a constant: the tensor {error} is not there",
            hint="build the bundle again",
        ) from error
    return value


def _encode(value: Any) -> Any:
    import torch

    if isinstance(value, torch.dtype):
        return {"dtype": by_torch(value).name}
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return None
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _replay(value: Any, stored: Mapping[str, torch.Tensor]) -> Any:
    import torch

    from .aten_literals import operator_named

    match value:
        case list():
            return [_replay(v, stored) for v in value]
        case {"constant": str(name)}:
            return stored[name]
        case {"float": str(text)}:
            return float(text)
        case {"dtype": str(name)}:
            return getattr(torch, DTYPES[name].torch)
        case {"item": int(index), "of": recipe}:
            return _replay(recipe, stored)[index]
        case {"op": str(name), "args": list(args)}:
            op = operator_named(name)
            kwargs = {k: _replay(v, stored) for k, v in value.get("kwargs", {}).items()}
            return op(*(_replay(v, stored) for v in args), **kwargs)
    return value


def _collect(value: Any, found: dict[str, None]) -> None:
    match value:
        case {"constant": str(name)}:
            found[name] = None
        case dict():
            for part in value.values():
                _collect(part, found)
        case list():
            for part in value:
                _collect(part, found)
