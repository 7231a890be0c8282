# SPDX-License-Identifier: Apache-2.0
"""Reads the converter tests' cases without running the tests.

Where a machine lacks pytest or hypothesis, as one with a GPU that only runs engines may, a stand-in
that remembers the parameters takes their place.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterator
from inspect import signature
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

Row = tuple[str, Any]
"""A subject and a case."""


def collect(unreadable: dict[str, str], subjects: Collection[str] = ()) -> Iterator[Row]:
    """``(subject, case)`` of every converter test that takes a ``check`` and nothing but a case.

    The subject is the test module's name without ``test_``; ``subjects`` are the only ones wanted,
    where given. A module that this PyTorch cannot import goes into ``unreadable``, with the reason.
    """
    _stand_in("pytest", _pytest)
    _stand_in("hypothesis", lambda: MagicMock(__path__=[]))
    package = importlib.import_module("tests.packager.converters")
    for found in pkgutil.iter_modules(package.__path__):
        subject = found.name.removeprefix("test_")
        if found.name != subject and (not subjects or subject in subjects):
            try:
                module = importlib.import_module(f"{package.__name__}.{found.name}")
            except (ImportError, AttributeError) as error:  # an operator that PyTorch lacks
                unreadable[subject] = str(error)
                continue
            yield from ((subject, case) for case in _of(module))


def _of(module: ModuleType) -> Iterator[Any]:
    for test in vars(module).values():
        if not isinstance(test, FunctionType) or not test.__name__.startswith("test_"):
            continue
        wanted, cases = set(signature(test).parameters), _parameters(test)
        if wanted == {"check", "case"} and cases:
            for case in cases:
                yield from _checked(test, case=case)
        elif wanted == {"check"}:
            yield from _checked(test)


def _checked(test: Callable[..., None], **more: Any) -> list[Any]:
    """The cases that a test hands to its ``check``."""
    told: list[Any] = []
    test(check=told.append, **more)
    return told


def _parameters(test: FunctionType) -> list[Any]:
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize" and mark.args[0] == "case":
            return [getattr(value, "values", (value,))[0] for value in mark.args[1]]
    return []


def _stand_in(name: str, make: Callable[[], Any]) -> None:
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        sys.modules[name] = make()


def _pytest() -> Any:
    def mark(name: str) -> Callable[..., Any]:
        def marked(*args: Any, **_: Any) -> Callable[[Any], Any]:
            def remembering(test: Any) -> Any:
                test.pytestmark = [SimpleNamespace(name=name, args=args)]
                return test

            return remembering

        return marked

    class Marks:
        def __getattr__(self, name: str) -> Any:
            return mark(name)

    module: Any = ModuleType("pytest")
    module.mark = Marks()
    module.fixture = mark("fixture")
    module.param = lambda *values, **_: SimpleNamespace(values=values)
    module.MonkeyPatch = object
    module.raises = module.importorskip = module.skip = MagicMock()
    return module
