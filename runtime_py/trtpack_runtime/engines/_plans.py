# SPDX-License-Identifier: Apache-2.0
"""What follows from the shapes of a call: its profile and its outputs; kept for the shapes seen
last. Needs no PyTorch.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._profiles import Profile, Shape

KEPT = 256
"""Shapes that an engine remembers."""

V = TypeVar("V")


@dataclass(frozen=True)
class Plan:
    """A call's profile, and for each output whose size is known size, strides and type.

    ``inputs`` and ``both`` know tensors by which it was called: the inputs, and these with the
    caller's outputs; an ``_alike.Alike`` each.
    """

    profile: Profile
    outputs: tuple[tuple[Shape, Shape, Any], ...]
    inputs: Any
    both: Any


class Recent(Generic[V]):
    """Values by the shapes they are for; the one that was not used for longest goes first."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._values: OrderedDict[Any, V] = OrderedDict()

    def get(self, key: Any) -> V | None:
        """The value, which now was used last."""
        value = self._values.get(key)
        if value is not None:
            try:
                self._values.move_to_end(key)
            except KeyError:  # another thread just dropped it
                return value
        return value

    def put(self, key: Any, value: V) -> None:
        """Keeps a value, in the place of another where there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def pop(self, key: Any) -> V | None:
        """Forgets a value, and answers it."""
        return self._values.pop(key, None)

    def pop_oldest(self) -> V:
        """Forgets the value that was not used for longest, and answers it."""
        return self._values.popitem(last=False)[1]

    @property
    def full(self) -> bool:
        """Whether another key drops one."""
        return len(self._values) >= self._limit

    def values(self) -> list[V]:
        """All values."""
        return list(self._values.values())

    def clear(self) -> None:
        """Forgets all."""
        self._values.clear()


def strides(shape: Shape) -> Shape:
    """The strides of a contiguous tensor, as PyTorch counts them."""
    steps = [1]
    for size in shape[:0:-1]:
        steps.append(steps[-1] * max(size, 1))
    return tuple(reversed(steps)) if shape else ()
