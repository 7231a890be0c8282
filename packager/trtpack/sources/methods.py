# SPDX-License-Identifier: Apache-2.0
"""Several methods of one model: how each is called, and the model seen as one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn

from ..errors import ConfigError, SourceError
from ..options import InputSpec, SampleFile
from ..spelling import nearest
from .examples import Call

FORWARD = "forward"

Named = TypeVar("Named", bound=InputSpec | SampleFile)


@dataclass(frozen=True)
class Method:
    """How one method of a module is called, as a factory tells it of ``forward``.

    ``(module, {"prefill": Method(tokens), "decode": Method((token, position))})`` is a model with
    two methods, which share its weights and its buffers. Inputs are tensors and whatever holds
    them, or each is a ``trtpack.Input``, which also says what varies. Without any they are given
    with ``--input prefill.tokens=1x16:int64``.
    """

    inputs: Any = None
    kwargs: Mapping[str, Any] | None = None
    dynamic_shapes: Any = None


def are_methods(value: object) -> bool:
    """Whether these are a model's methods, and not the inputs of one."""
    return isinstance(value, Mapping) and any(isinstance(v, Method) for v in value.values())


def check_methods(module: nn.Module, methods: Mapping[Any, Any], origin: str) -> None:
    """Refuses what are no methods of the module's class.

    Raises:
        SourceError: with the nearest method that it has.
    """
    kind = type(module)
    for name, method in methods.items():
        if not isinstance(method, Method):
            raise SourceError(
                f"{origin} returned a {type(method).__name__} for {name!r} beside methods",
                hint=f"write {name!r}: Method(inputs) for each of them",
            )
        if isinstance(name, str) and name.isidentifier() and callable(getattr(kind, name, None)):
            continue
        own = [n for n in dir(kind) if n not in dir(nn.Module) and callable(getattr(kind, n))]
        near = nearest(str(name), [*own, FORWARD])
        raise SourceError(
            f"{origin} returned a {kind.__name__}, which has no method {name!r}",
            hint=f"did you mean {near}?" if near else "define it in the module's class",
        )


def seen_as(module: nn.Module, name: str) -> nn.Module:
    """The module as one whose ``forward`` is another method of its own.

    All that it holds is the module's, not a copy: what one method does to a buffer the others see.
    """
    if name == FORWARD:
        return module
    kind = type(module)
    own = {FORWARD: getattr(kind, name), "__module__": kind.__module__}
    made = type(kind.__name__, (kind,), {**own, "__qualname__": kind.__qualname__})
    seen: nn.Module = object.__new__(made)
    object.__setattr__(seen, "__dict__", module.__dict__)
    return seen


def specs_in(call: Call, method: str) -> tuple[InputSpec, ...]:
    """The inputs that are to be drawn, each under its place; none where they are tensors.

    Raises:
        ConfigError: some are and some are not.
    """
    args, kwargs = call
    given = [*args, *kwargs.values()]
    specs = [value for value in given if isinstance(value, InputSpec)]
    if specs and len(specs) < len(given):
        raise ConfigError(
            f"method {method} is given tensors beside inputs that are drawn",
            hint="give trtpack.Input(...) for each, or tensors with dynamic_shapes",
        )
    named = [replace(spec, name=name) for name, spec in kwargs.items() if specs]
    return (*specs[: len(args)], *named)


def of_method(
    given: Iterable[Named], method: str, methods: Sequence[str], flag: str
) -> tuple[Named, ...]:
    """What is given of one method's inputs, under their own names: ``tokens`` of
    ``prefill.tokens``.

    Raises:
        ConfigError: it does not begin with one of the methods.
    """
    if tuple(methods) == (FORWARD,):
        return tuple(given)
    found = []
    for one in given:
        owner, _, name = (one.name or "").partition(".")
        if owner not in methods or not name:
            near = f"{methods[0]}.{one.name or 'INPUT'}"
            raise ConfigError(
                f"{flag} {one} does not say whose input it is: the methods are "
                f"{', '.join(methods)}",
                hint=f"name it, for example {near}",
            )
        if owner == method:
            found.append(replace(one, name=name))
    return tuple(found)
