# SPDX-License-Identifier: Apache-2.0
"""Enums and classes with exactly the names of one release; what it lacks raises AttributeError.

What a class does is a mixin of ``behaviour.py`` and its neighbours: ``_do_<method>`` is called with
the bound arguments by keyword, ``_get_<property>`` and ``_set_<property>`` stand for properties,
``_DEFAULTS`` are values of properties nobody has set. All else is kept and handed out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, EnumMeta
from typing import Any

Overloads = Sequence[Sequence[str]]


def lacks(release: str, name: str) -> AttributeError:
    """What a name that the release does not have raises."""
    return AttributeError(f"TensorRT {release} has no {name}")


def enum(release: str, name: str, members: Mapping[str, int]) -> Any:
    """One of the release's enums: members compare by identity, ``int()`` gives their number."""

    class Meta(EnumMeta):
        def __getattr__(cls, member: str) -> Any:
            made = cls.__dict__.get("_member_map_", {})  # Python 3.10 asks here for members
            if member in made:
                return made[member]
            if member.startswith("_"):
                raise AttributeError(member)
            raise lacks(release, f"{name}.{member}")

    class Numbered(Enum, metaclass=Meta):
        def __int__(self) -> int:
            return int(self.value)

        __index__ = __int__

        def __str__(self) -> str:
            return f"{name}.{self.name}"

    return Numbered(name, dict(members))


class _Known(type):
    """The type of a double's classes: a class, too, has only the release's names."""

    _release: str
    _class: str

    def __getattr__(cls, member: str) -> Any:
        if member.startswith("_"):
            raise AttributeError(member)
        raise lacks(cls._release, f"{cls._class}.{member}")


class Strict(metaclass=_Known):
    """What every class of a double is below: properties are kept in ``_values``."""

    _release = ""
    _class = ""
    _trt: Any = None
    _DEFAULTS: Mapping[str, Any] = {}

    def __new__(cls, *_args: Any, **_given: Any) -> Any:
        made = super().__new__(cls)
        object.__setattr__(made, "_values", {})
        return made

    def __init__(self, *_args: Any, **_given: Any) -> None:
        raise TypeError(f"{self._class}: No constructor defined!")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise lacks(self._release, f"{self._class}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        generated = "_class" in type(self).__dict__
        if generated and not name.startswith("_") and not hasattr(type(self), name):
            raise lacks(self._release, f"{self._class}.{name}")
        object.__setattr__(self, name, value)

    @classmethod
    def _made(cls, **private: Any) -> Any:
        """An object as TensorRT itself makes it, whatever its constructor is."""
        made = cls.__new__(cls)
        for name, value in private.items():
            object.__setattr__(made, f"_{name}", value)
        return made

    def _is_set(self, name: str) -> bool:
        values: dict[str, Any] = self._values
        return name in values

    def _value(self, name: str) -> Any:
        """A property as it is kept, its default where nobody has set it."""
        values: dict[str, Any] = self._values
        return values[name] if name in values else self._DEFAULTS.get(name)


def generated(
    trt: Any, release: str, classes: Mapping[str, Any], mixins: Mapping[str, type]
) -> dict[str, type]:
    """The classes of a release, bases before those that have them."""
    made: dict[str, type] = {}

    def make(name: str) -> type:
        if name not in made:
            row = classes[name]
            bases = [make(base) for base in row["bases"] if base in classes] or [Strict]
            mixin = mixins.get(name)
            made[name] = _class(trt, release, name, row, ([mixin] if mixin else []) + bases)
        return made[name]

    for name in classes:
        make(name)
    return made


def _class(
    trt: Any, release: str, name: str, row: Mapping[str, Any], bases: Sequence[type]
) -> type:
    names: dict[str, Any] = {"_class": name, "_release": release, "_trt": trt}
    for method, overloads in row["methods"].items():
        names[method] = _method(f"{name}.{method}", method, overloads)
    for key, access in row["properties"].items():
        names[key] = _property(key, access)
    # a class may name a base twice over: the nearer one is enough
    direct = [b for b in bases if not any(b is not o and b in o.__mro__ for o in bases)]
    return _Known(name, tuple(direct), names)


def _method(full: str, name: str, overloads: Overloads) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **given: Any) -> Any:
        bound = bind(full, overloads, args, given)
        act = getattr(type(self), f"_do_{name.strip('_')}", None)
        if act is not None:
            return act(self, **bound)
        return None

    method.__name__, method.__qualname__ = name, full
    return method


def bind(
    full: str, overloads: Overloads, args: Sequence[Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by keyword, as the first overload that takes them names them."""
    for overload in overloads:
        names = [name.rstrip("=") for name in overload]
        required = {name for name in overload if not name.endswith("=")}
        placed = dict(zip(names, args))  # noqa: B905 - counted below
        bound = placed | given
        if (
            len(args) <= len(names)
            and not placed.keys() & given.keys()
            and bound.keys() <= set(names)
            and required <= bound.keys()
        ):
            return bound
    if not overloads:  # static methods, which the tables have without parameters
        return {f"arg{index}": value for index, value in enumerate(args)} | dict(given)
    shapes = " or ".join(f"({', '.join(overload)})" for overload in overloads)
    raise TypeError(
        f"{full}(): incompatible function arguments: takes {shapes}, "
        f"got {len(args)} arguments and {sorted(given)}"
    )


def _property(name: str, access: str) -> property:
    def read(self: Any) -> Any:
        getter = getattr(type(self), f"_get_{name}", None)
        return getter(self) if getter is not None else self._value(name)

    def write(self: Any, value: Any) -> None:
        setter = getattr(type(self), f"_set_{name}", None)
        if setter is not None:
            setter(self, value)
        else:
            self._values[name] = value

    return property(read if "r" in access else None, write if "w" in access else None)
