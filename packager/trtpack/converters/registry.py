# SPDX-License-Identifier: Apache-2.0
"""Which ATen operator becomes TensorRT layers, and how."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch._ops import OpOverload

from trtpack_runtime.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])
When = Callable[..., "str | None"]


class ConverterError(ConfigError, ValueError):
    """A converter that cannot be registered, or does not fit its operator."""


@dataclass(frozen=True)
class Converter:
    """A converter: ``function(ctx, **arguments)`` and the reasons to refuse beforehand.

    ``name`` is the operator's, as ``op.name()`` gives it: ``aten::add.Tensor``, ``aten::relu``.
    ``when`` takes the bound arguments (tensors as ``Tensor``), and ``target``, by keyword. It
    answers None, or why this node has to stay in PyTorch, in words a user can read.
    """

    name: str
    function: Callable[..., Any]
    when: When | None

    @property
    def op(self) -> OpOverload | None:
        """The operator, None where the library that defines it has not been imported."""
        return operator(self.name)


_REGISTRY: dict[str, Converter] = {}
_UNSEEN: dict[str, tuple[str, ...]] = {}
"""Operators that did not exist when they were registered, each with those beside it."""


def converter(*ops: OpOverload | str, when: When | None = None) -> Callable[[Function], Function]:
    """Registers a function as the converter of ``ops``.

    An operator of a library that need not be there is given by name, ``torchvision::nms`` or
    ``mylib::op.overload``; its schema is checked as soon as the operator exists. The function's
    parameters after ``ctx`` are the operator's schema arguments, by name. Where only some of
    ``ops`` have an argument, its parameter has a default.

    Raises:
        ConverterError: an operator registered twice, or a parameter no schema has.
    """
    names = tuple(_name(op) for op in ops)

    def register(function: Function) -> Function:
        _check(names, function)
        for name in names:
            if name in _REGISTRY and not _is_again(function, _REGISTRY[name].function):
                raise ConverterError(f"{name} has two converters")
            _REGISTRY[name] = Converter(name, function, when)
            if operator(name) is None:
                _UNSEEN[name] = names
        return function

    return register


def find(op: object) -> Converter | None:
    """The converter of an operator overload, None if there is none.

    Raises:
        ConverterError: it was registered by name, and its parameters are not the operator's.
    """
    if not isinstance(op, OpOverload):
        return None
    found = _REGISTRY.get(op.name())
    if found is not None and found.name in _UNSEEN:
        _check(_UNSEEN[found.name], found.function)
        del _UNSEEN[found.name]
    return found


def registered() -> Iterator[Converter]:
    """All converters, by operator name."""
    yield from sorted(_REGISTRY.values(), key=lambda c: c.name)


@contextmanager
def undone_on_error() -> Iterator[None]:
    """Takes back what was registered within where it ends in an error."""
    before, unseen = dict(_REGISTRY), dict(_UNSEEN)
    try:
        yield
    except BaseException:
        for now, then in ((_REGISTRY, before), (_UNSEEN, unseen)):
            now.clear()
            now.update(then)  # type: ignore[arg-type]  # each its own
        raise


def operator(name: str) -> OpOverload | None:
    """The operator ``namespace::name.overload``, None where no imported library defines it."""
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops, namespace), packet, None)
    op = getattr(found, overload or "default", None)
    return op if isinstance(op, OpOverload) else None


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


def _is_again(function: Callable[..., Any], known: Callable[..., Any]) -> bool:
    """Whether a function is the known one, of a module that was executed a second time."""
    first, second = (getattr(f, "__code__", None) for f in (function, known))
    return first is not None and first == second


def _name(op: OpOverload | str) -> str:
    if isinstance(op, OpOverload):
        return str(op.name())
    if not re.fullmatch(r"\w+::\w+(\.\w+)?", op):
        raise ConverterError(f"{op!r} is no operator name, which is namespace::name.overload")
    return op.removesuffix(".default")


def _check(names: tuple[str, ...], function: Callable[..., Any]) -> None:
    """Compares a converter's parameters with those of its operators that exist."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    ops = [op for op in map(operator, names) if op is not None]
    known = {argument.name for op in ops for argument in op._schema.arguments}
    unknown = _named(parameters) - known
    if unknown and len(ops) == len(names):
        raise ConverterError(f"{names[0]}: the schema has no argument {', '.join(sorted(unknown))}")
    for op in ops:
        _check_parameters(op, parameters)


def _check_parameters(op: OpOverload, parameters: list[inspect.Parameter]) -> None:
    schema = {argument.name for argument in op._schema.arguments}
    needed = _named([p for p in parameters if p.default is p.empty])
    if absent := needed - schema:
        raise ConverterError(f"{op}: the schema has no argument {', '.join(sorted(absent))}")
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_all and (missing := schema - _named(parameters)):
        raise ConverterError(f"{op}: the converter lacks the argument {', '.join(sorted(missing))}")


def _named(parameters: list[inspect.Parameter]) -> set[str]:
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
