# SPDX-License-Identifier: Apache-2.0
"""JSON read with a place in every complaint: ``methods.forward.inputs[0].dtype``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class MalformedError(ValueError):
    """A value that is not what the format says, and where it stands."""


class Place:
    """A JSON value and the way to it; what its methods do not find is a MalformedError."""

    def __init__(self, value: Any, path: str = "") -> None:
        self.value, self.path = value, path

    def wrong(self, wanted: str) -> NoReturn:
        """Complains about this value."""
        shown = json.dumps(self.value, ensure_ascii=False, default=repr)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        raise MalformedError(f"{self.path or 'the top'} wants {wanted}, has {shown}")

    def __getitem__(self, key: str) -> Place:
        found = self.get(key)
        if found is None:
            raise MalformedError(f"{self._below(key)} is missing")
        return found

    def get(self, key: str) -> Place | None:
        """The value of an object's key; None where it is absent or null."""
        found = self.object().get(key)
        return None if found is None else Place(found, self._below(key))

    def object(self) -> Mapping[str, Any]:
        """The value, an object."""
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return self.value

    def string(self, among: Collection[str] | None = None) -> str:
        """The value, a string that is not empty, one of ``among`` where given."""
        if not isinstance(self.value, str) or not self.value:
            self.wrong("a string")
        if among is not None and self.value not in among:
            self.wrong(f"one of {', '.join(sorted(among))}")
        return self.value

    def integer(self) -> int:
        """The value, an integer from 0."""
        if type(self.value) is not int or self.value < 0:
            self.wrong("an integer from 0")
        return self.value

    def boolean(self) -> bool:
        """The value, true or false."""
        if not isinstance(self.value, bool):
            self.wrong("true or false")
        return self.value

    def items(self) -> Iterator[Place]:
        """The values of a list."""
        if not isinstance(self.value, list):
            self.wrong("a list")
        return (Place(item, f"{self.path}[{i}]") for i, item in enumerate(self.value))

    def each(self, read: Callable[[Place], T]) -> tuple[T, ...]:
        """What ``read`` makes of every value of a list."""
        return tuple(read(item) for item in self.items())

    def mapping(self, read: Callable[[Place], T]) -> dict[str, T]:
        """What ``read`` makes of every value of an object, by key."""
        return {key: read(Place(item, self._below(key))) for key, item in self.object().items()}

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def parse(text: bytes) -> Any:
    """Strict JSON in UTF-8: no key twice, no NaN.

    Raises:
        MalformedError: anything else.
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise MalformedError("it is nested too deeply") from error
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(f"it is no JSON: {error}") from error


def canonical(value: Any) -> bytes:
    """The one way to write a value: sorted keys, no spaces, UTF-8, a newline at the end."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode() + b"\n"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise MalformedError(f"key {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"it holds {name}")
