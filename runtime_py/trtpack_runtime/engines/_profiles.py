# SPDX-License-Identifier: Apache-2.0
"""The shapes an engine takes: its optimisation profiles, and which of them serves a call.

Needs no PyTorch: with and without it the same profile is chosen and the same is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from trtpack_runtime.errors import BundleError, InputMismatchError

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: its index in the engine, and for each input the least and the
    largest shape, in the caller's order."""

    index: int
    ranges: tuple[tuple[Shape, Shape], ...]

    def holds(self, shapes: Sequence[Shape]) -> bool:
        """Whether shapes lie within its ranges."""
        return all(_within(shape, *ends) for shape, ends in zip(shapes, self.ranges, strict=True))

    @property
    def width(self) -> int:
        """How much it has to be ready for: elements of the largest shapes."""
        return sum(math.prod(high) for _, high in self.ranges)


class Profiles:
    """Every profile of an engine, the narrowest first."""

    def __init__(
        self, engine: Any, inputs: Sequence[str], fixed: Mapping[str, Shape] | None = None
    ) -> None:
        """Reads them from TensorRT's ``engine``.

        Args:
            engine: a deserialised engine.
            inputs: its inputs in the caller's order.
            fixed: the shapes of inputs that have one only, for an engine that does not tell.

        Raises:
            BundleError: TensorRT tells no shape of an input.
        """
        self.inputs = tuple(inputs)
        shapes = {name: _shape(engine, name, fixed or {}) for name in inputs}
        self.dynamic = tuple(-1 in shapes[name] for name in inputs)
        """Whether each input has an open size, which is told before a run."""
        count = max(1, engine.num_optimization_profiles)
        read = [Profile(i, tuple(self._ranges(engine, i, shapes))) for i in range(count)]
        self._profiles = sorted(read, key=lambda profile: (profile.width, profile.index))

    def __len__(self) -> int:
        return len(self._profiles)

    @property
    def first(self) -> Profile:
        """The one that a new execution context has."""
        return next(profile for profile in self._profiles if profile.index == 0)

    def fitting(self, shapes: Sequence[Shape]) -> Profile:
        """The narrowest profile that holds the inputs' shapes.

        Raises:
            InputMismatchError: none does; it names the dimension, the range, and what was given.
        """
        if len(shapes) != len(self.inputs):
            raise InputMismatchError(
                f"the engine takes {len(self.inputs)} inputs, got {len(shapes)}",
                hint=f"give {', '.join(self.inputs)}",
            )
        for profile in self._profiles:
            if profile.holds(shapes):
                return profile
        raise self._outside(shapes)

    def _ranges(
        self, engine: Any, index: int, shapes: Mapping[str, Shape]
    ) -> list[tuple[Shape, Shape]]:
        ranges = []
        for name, dynamic in zip(self.inputs, self.dynamic, strict=True):
            low = high = shapes[name]
            if dynamic:
                low, _, high = map(tuple, engine.get_tensor_profile_shape(name, index))
            ranges.append((low, high))
        return ranges

    def _outside(self, shapes: Sequence[Shape]) -> InputMismatchError:
        """What is wrong with shapes that no profile holds."""
        by_input = [[profile.ranges[i] for profile in self._profiles] for i in range(len(shapes))]
        wrong = [
            i
            for i, (shape, ranges) in enumerate(zip(shapes, by_input, strict=True))
            if not any(_within(shape, *ends) for ends in ranges)
        ]
        i = (wrong or [0])[0]
        ranges = list(dict.fromkeys(by_input[i]))
        spelled = " or ".join(f"from {list(low)} to {list(high)}" for low, high in ranges)
        why = _dimension(shapes[i], ranges) if wrong else "; no profile has all inputs so"
        return InputMismatchError(
            f"input {self.inputs[i]}: the engine takes shapes {spelled}, "
            f"got {list(shapes[i])}{why}",
            hint="build again with a wider --input range",
        )


def check_names(engine: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Holds an engine's tensors against the segment's.

    Raises:
        BundleError: they are others.
    """
    has = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    wants = {*inputs, *outputs}
    if has != wants:
        raise BundleError(
            "the engine is of another segment",
            hint="build the bundle again",
            wants=sorted(wants),
            has=sorted(has),
        )


def _within(shape: Shape, low: Shape, high: Shape) -> bool:
    return len(shape) == len(low) and all(
        a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
    )


def _dimension(shape: Shape, ranges: Sequence[tuple[Shape, Shape]]) -> str:
    """Which dimension lies outside, where one does in every profile."""
    if any(len(low) != len(shape) for low, _ in ranges):
        return f"; it has {len(shape)} dimensions, not {len(ranges[0][0])}"
    for i, size in enumerate(shape):
        ends = list(dict.fromkeys((low[i], high[i]) for low, high in ranges))
        if not any(low <= size <= high for low, high in ends):
            spelled = " or ".join(f"{a} to {b}" if a != b else str(a) for a, b in ends)
            return f"; dimension {i} is {size}, it may be {spelled}"
    return ""


def _shape(engine: Any, name: str, fixed: Mapping[str, Shape]) -> Shape:
    """An input's shape, -1 where it is open.

    TensorRT 8.6 calls it invalid in an engine whose outputs are sized by data and whose inputs have
    no open size.
    """
    try:
        return tuple(engine.get_tensor_shape(name))
    except ValueError as error:  # invalid dimensions: there are -1 of them
        if name not in fixed:
            raise BundleError(
                f"TensorRT tells no shape of the engine's input {name}",
                hint="build the bundle again",
            ) from error
        return fixed[name]
