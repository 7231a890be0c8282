# SPDX-License-Identifier: Apache-2.0
"""Which ATen operator becomes TensorRT layers, and how."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch._ops import OpOverload

Function = TypeVar("Function", bound=Callable[..., Any])
When = Callable[..., "str | None"]


@dataclass(frozen=True)
class Converter:
    """A converter: ``function(ctx, **arguments)`` and the reasons to refuse beforehand.

    ``when`` takes the bound arguments (tensors as ``Tensor``), and ``target``, by keyword. It
    answers None, or why this node has to stay in PyTorch, in words a user can read.
    """

    op: OpOverload
    function: Callable[..., Any]
    when: When | None


_REGISTRY: dict[OpOverload, Converter] = {}


def converter(*ops: OpOverload, when: When | None = None) -> Callable[[Function], Function]:
    """Registers a function as the converter of ``ops``.

    The function's parameters after ``ctx`` are the operator's schema arguments, by name. Where
    only some of ``ops`` have an argument, its parameter has a default.

    Raises:
        ValueError: an operator registered twice, or a parameter no schema has.
    """

    def register(function: Function) -> Function:
        known = {argument.name for op in ops for argument in op._schema.arguments}
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if unknown := _named(parameters) - known:
            raise ValueError(f"{ops[0]}: the schema has no argument {', '.join(sorted(unknown))}")
        for op in ops:
            if op in _REGISTRY:
                raise ValueError(f"{op} has two converters")
            _check_parameters(op, parameters)
            _REGISTRY[op] = Converter(op, function, when)
        return function

    return register


def find(op: object) -> Converter | None:
    """The converter of an operator overload, None if there is none."""
    return _REGISTRY.get(op) if isinstance(op, OpOverload) else None


def registered() -> Iterator[Converter]:
    """All converters, by operator name."""
    yield from sorted(_REGISTRY.values(), key=lambda c: str(c.op))


def bind(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by schema name, defaults filled in."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(op._schema.arguments):
        if i < len(args):
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
        elif isinstance(argument.type, torch.OptionalType):
            bound[argument.name] = None
    return bound


def _check_parameters(op: OpOverload, parameters: list[inspect.Parameter]) -> None:
    schema = {argument.name for argument in op._schema.arguments}
    needed = _named([p for p in parameters if p.default is p.empty])
    if absent := needed - schema:
        raise ValueError(f"{op}: the schema has no argument {', '.join(sorted(absent))}")
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_all and (missing := schema - _named(parameters)):
        raise ValueError(f"{op}: the converter lacks the argument {', '.join(sorted(missing))}")


def _named(parameters: list[inspect.Parameter]) -> set[str]:
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
