# SPDX-License-Identifier: Apache-2.0
"""The original's signature on the module that stands for it, for tools that ask for one."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch

_POSITIONAL, _BY_NAME = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
M = TypeVar("M", bound=torch.nn.Module)


def with_signature(cls: type[M], tree: Any) -> type[M]:
    """A class like ``cls`` whose ``forward`` has the signature of a call's structure.

    A class, since a function on the instance would keep it alive in a cycle, and its engines with
    it.
    """
    signature = signature_of(tree)
    if signature is None:
        return cls
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call("forward", args, kwargs)

    forward.__doc__ = cls.forward.__doc__
    forward.__qualname__ = f"{cls.__qualname__}.forward"
    parameters = [own, *signature.parameters.values()]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect heeds it
    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})


def signature_of(tree: Any) -> inspect.Signature | None:
    """How a method is called, by the structure of its arguments; None where that names none.

    What was not part of the capture may be left out; a parameter behind one of those has to be
    given by name.
    """
    match tree:
        case {"call": {"parameters": [*names], "args": args, "kwargs": kwargs}} if names:
            keywords = [name for name, _ in kwargs]
        case _:
            return None
    captured = [position < len(args) or name in keywords for position, name in enumerate(names)]
    whole = captured.index(False) if False in captured else len(names)
    parameters = [
        inspect.Parameter(
            name,
            _POSITIONAL if position < whole else _BY_NAME,
            default=inspect.Parameter.empty if known else None,
        )
        for position, (name, known) in enumerate(zip(names, captured, strict=True))
    ]
    rest = [name for name in keywords if name not in names]
    return inspect.Signature([*parameters, *(inspect.Parameter(name, _BY_NAME) for name in rest)])
