# SPDX-License-Identifier: Apache-2.0
"""Holds the shapes of a call's inputs against what the manifest says of them, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import dims
from .errors import InputMismatchError
from .manifest import TensorSpec

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every input of a call by name."""


def check_count(wanted: Sequence[TensorSpec], given: int) -> None:
    """InputMismatchError where a call has too few inputs, or too many."""
    if len(wanted) != given:
        raise wrong_count([spec.name for spec in wanted], given)


def wrong_count(names: Sequence[str], given: int) -> InputMismatchError:
    """What is wrong with a call of another number of inputs than these."""
    return InputMismatchError(
        f"wanted {len(names)} inputs ({', '.join(names)}), got {given}",
        hint="see the inputs with trtpack inspect",
    )


def check_rank(spec: TensorSpec, shape: Sequence[int]) -> None:
    """InputMismatchError where an input has other dimensions than the method takes."""
    if len(shape) != len(spec.shape):
        raise InputMismatchError(
            f"input {spec.name}: wanted {len(spec.shape)} dimensions {shape_text(spec)}, "
            f"got {len(shape)} {list(shape)}",
            hint="add or remove dimensions, such as the batch",
        )


def check_sizes(spec: TensorSpec, shape: Sequence[int], sizes: Shapes) -> None:
    """Compares every size of an input; its rank is right.

    Args:
        sizes: the shapes of all inputs of the call, for sizes that are to agree.

    Raises:
        InputMismatchError: names the dimension, what was wanted and what was given.
    """
    for axis, (size, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        where = f"input {spec.name}: dimension {axis} is {size}, wanted"
        if isinstance(wanted, int):
            if size != wanted:
                raise InputMismatchError(
                    f"{where} {wanted}", hint=f"give {spec.name} the shape {shape_text(spec)}"
                )
            continue
        if spec.min is not None and spec.max is not None:
            low, high = spec.min[axis], spec.max[axis]
            if not low <= size <= high:
                raise InputMismatchError(
                    f"{where} {low} to {high}",
                    hint=f"build the bundle with a range for {spec.name} that includes {size}",
                )
        if wanted is not None:
            same = dims.evaluate(wanted, lambda name, i: sizes[name][i])
            if same != size:
                raise InputMismatchError(
                    f"{where} {same}, which is {wanted}",
                    hint="make the sizes of the inputs agree",
                )


def check_state(name: str, shape: Sequence[int], given: Any, *kinds: Any) -> None:
    """InputMismatchError where a slot of this shape is to be put to what has another, or is of none
    of these classes."""
    if not isinstance(given, kinds):
        wanted = kinds[0].__name__
        raise InputMismatchError(
            f"state {name}: wanted a {wanted}, got {type(given).__name__}",
            hint=f"convert it to a {wanted}",
        )
    if tuple(given.shape) != tuple(shape):
        raise InputMismatchError(
            f"state {name}: wanted the shape {list(shape)}, got {list(given.shape)}",
            hint="give it the shape it has after reset()",
        )


def shape_text(spec: TensorSpec) -> str:
    """The shape an input is to have, with ranges: ``[1..8, 3]``."""
    parts = []
    for axis, size in enumerate(spec.shape):
        if isinstance(size, int):
            parts.append(str(size))
        elif spec.min is not None and spec.max is not None:
            parts.append(f"{spec.min[axis]}..{spec.max[axis]}")
        else:
            parts.append("any")
    return f"[{', '.join(parts)}]"
