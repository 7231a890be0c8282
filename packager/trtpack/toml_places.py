# SPDX-License-Identifier: Apache-2.0
"""Reads a TOML file that a user wrote, and knows the line and column of everything in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import ConfigError

Key = tuple[str | int, ...]
"""``("models", 0, "name")``: the way to something in a document."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|\'[^\']*\'', re.DOTALL
)
_PLAIN = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


class FileError(ConfigError):
    """A file that says something wrong; ``problems`` has every thing, each with its place."""

    def __init__(self, problems: Iterable[str], *, hint: str) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(self.problems[0] + more, hint=hint)


@dataclass(frozen=True)
class Place:
    """Where a key stands, and where its value begins: character offsets."""

    key: int
    value: int


class Document:
    """The content of one TOML file, with the places of its keys and values."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        try:
            self.content: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            told = str(error)
            at = _AT.search(told)
            lines = text.split("\n")
            place = (at[1], at[2]) if at and at[1] else (len(lines), len(lines[-1]) + 1)
            reason = told[: at.start()] if at else told
            raise FileError(
                [f"{path}:{place[0]}:{place[1]}: {reason}"], hint=f"correct the line of {path}"
            ) from error
        self._text = text

    @classmethod
    def read(cls, path: Path) -> Document:
        """Reads a file.

        Raises:
            FileError: it is not TOML, with the line and column.
            ConfigError: it cannot be read.
        """
        try:
            return cls(path, path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"cannot read {path}: {reason}", hint="check the path") from error

    @cached_property
    def places(self) -> Mapping[Key, Place]:
        """Where everything is; walked through when something is asked for first."""
        return _Scanner(self._text).places

    def at(self, key: Key, *, of_key: bool = False) -> str:
        """``file:line:column`` of a value, or of its key; of what holds it where it is not said."""
        while key and key not in self.places:
            key = key[:-1]
        place = self.places.get(key, Place(0, 0))
        offset = place.key if of_key else place.value
        before = self._text[:offset]
        return f"{self.path}:{before.count(chr(10)) + 1}:{offset - before.rfind(chr(10))}"


class _Scanner:
    """Walks text that is known to be TOML."""

    def __init__(self, text: str) -> None:
        self.text, self.offset = text, 0
        self.places: dict[Key, Place] = {}
        self.counts: dict[Key, int] = {}  # of the tables of an array, [[so]]
        table: Key = ()
        while self._skip() < len(text):
            if text[self.offset] == "[":
                table = self._header()
            else:
                self._assignment(table)

    def _skip(self) -> int:
        match = _BLANK.match(self.text, self.offset)
        self.offset = match.end() if match else self.offset
        return self.offset

    def _header(self) -> Key:
        many = self.text.startswith("[[", self.offset)
        self.offset += 2 if many else 1
        self._skip()
        names = self._names()
        self._skip()
        self.offset += 2 if many else 1
        key: Key = ()
        for name, start in names[:-1]:
            key = self._last((*key, name))
            self.places.setdefault(key, Place(start, start))
        name, start = names[-1]
        key = (*key, name)
        self.places.setdefault(key, Place(start, start))
        if many:
            self.counts[key] = self.counts.get(key, -1) + 1
            key = self._last(key)
        self.places[key] = Place(start, start)
        return key

    def _last(self, key: Key) -> Key:
        return (*key, self.counts[key]) if key in self.counts else key

    def _names(self) -> list[tuple[str, int]]:
        """The names of a dotted key, each with where it begins."""
        start = self.offset
        names = [(self._name(), start)]
        while self._skip() < len(self.text) and self.text[self.offset] == ".":
            self.offset += 1
            start = self._skip()
            names.append((self._name(), start))
        return names

    def _name(self) -> str:
        bare = _BARE_KEY.match(self.text, self.offset)
        if bare:
            self.offset = bare.end()
            return bare[0]
        return str(tomllib.loads(f"x={self._string()}")["x"])

    def _string(self) -> str:
        match = _STRING.match(self.text, self.offset)
        assert match is not None
        self.offset = match.end()
        return match[0]

    def _assignment(self, table: Key) -> None:
        key = table
        for name, start in self._names():
            key = (*key, name)
            self.places.setdefault(key, Place(start, start))
        self.offset += 1  # =
        self.places[key] = Place(start, self._skip())
        self._value(key)

    def _value(self, key: Key) -> None:
        first = self.text[self.offset]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._items("]", key)
        elif first == "{":
            self._items("}", key)
        else:
            match = _PLAIN.match(self.text, self.offset)
            assert match is not None
            self.offset = match.end()

    def _items(self, end: str, key: Key) -> None:
        self.offset += 1
        index = 0
        while self.text[self._skip()] != end:
            if self.text[self.offset] == ",":
                self.offset += 1
            elif end == "}":
                self._assignment(key)
            else:
                self.places[(*key, index)] = Place(self.offset, self.offset)
                self._value((*key, index))
                index += 1
        self.offset += 1
