# SPDX-License-Identifier: Apache-2.0
"""Values of classes that a bundle names: of the class if it is imported, else of a like one.

Nothing is imported because a bundle names it.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import BundleError


class Record(Mapping[Any, Any]):
    """Named values by key, attribute or position; stands for a class that is not imported here."""

    def __init__(self, class_name: str, fields: Mapping[str, Any]) -> None:
        self._class_name, self._fields = class_name, dict(fields)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._fields[key]
        return self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"{self.__dict__.get('_class_name', 'record')} has no {name!r}")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"{self._class_name.rpartition('.')[2]}({fields})"

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self._fields.values())


def named_tuple(name: str, fields: Mapping[str, Any]) -> Any:
    """A value of the named tuple class called ``name``, or of one made up like it."""
    known = _imported(name)
    if isinstance(known, type) and issubclass(known, tuple):
        if getattr(known, "_fields", None) == tuple(fields):
            return known(*fields.values())
        if hasattr(known, "n_sequence_fields") and known.n_sequence_fields == len(fields):
            return known(tuple(fields.values()))  # torch.return_types
    try:
        made = collections.namedtuple(name.rpartition(".")[2], list(fields))  # type: ignore[misc]  # names not known before
    except ValueError as error:
        raise BundleError(
            f"malformed structure: {name!r}", hint="build the bundle again"
        ) from error
    return made(*fields.values())


def record(name: str, fields: Mapping[str, Any]) -> Any:
    """A value of the dataclass called ``name``, or a ``Record``."""
    known = _imported(name)
    if isinstance(known, type) and dataclasses.is_dataclass(known):
        parameters = {field.name for field in dataclasses.fields(known) if field.init}
        if parameters.issuperset(fields):
            return known(**fields)
    return Record(name, fields)


def _imported(name: str) -> Any:
    """The class called ``name`` if its module is imported already, else None."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:cut]))
        if found is not None:
            for part in parts[cut:]:  # not getattr: a module may import what it is asked for
                found = getattr(found, "__dict__", {}).get(part)
            return found
    return None
