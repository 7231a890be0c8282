# SPDX-License-Identifier: Apache-2.0
"""What crosses from one segment to the next, as a few figures to hold a device's own against.

A border tells enough of a tensor to see that it is another one, without storing it: its shape, the
mean, deviation and largest size of its finite elements, how many are not finite, and the elements
at 64 fixed places.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch

from .engines import Runner
from .execution import LoadedSegment, Watch
from .manifest import Border, Method
from .program import Program
from .smoke_report import DEFAULT_TOLERANCE

SKETCH = 64
"""How many elements a border holds; all of a tensor that has fewer."""

_STEP = 2654435761
"""Element i of a sketch is number ``i * _STEP mod n`` of a tensor's n, row by row."""

_DIGITS = 6
_DEFAULT_BOUND = 1e-3


def places(count: int) -> list[int]:
    """The places of a sketch in a tensor of ``count`` elements."""
    if count <= SKETCH:
        return list(range(count))
    return [i * _STEP % count for i in range(SKETCH)]


def border_of(tensor: torch.Tensor) -> Border:
    """The figures of a tensor of any type and device.

    Complex numbers count as two.
    """
    flat = _flat(tensor)
    finite = flat[flat.isfinite()]
    some = finite.numel() > 0
    return Border(
        shape=tuple(tensor.shape),
        mean=_rounded(float(finite.mean())) if some else 0.0,
        std=_rounded(float(finite.std(unbiased=False))) if some else 0.0,
        absmax=_rounded(float(finite.abs().max())) if some else 0.0,
        nonfinite=flat.numel() - finite.numel(),
        sketch=tuple(_number(float(flat[i])) for i in places(flat.numel())),
    )


def crossing(program: Program) -> set[str]:
    """The values that one segment computes and another reads."""
    made = {value for segment in program.segments for value in segment.outputs.values()}
    return made & {value for segment in program.segments for value in segment.inputs.values()}


def noting(wanted: Container[str], found: dict[str, Border]) -> Watch:
    """Notes the borders of ``wanted`` values in ``found`` while segments run."""

    def watch(segment: LoadedSegment) -> Runner:
        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            results = segment.run(inputs)
            for name, value in zip(segment.outputs, results, strict=True):
                if name in wanted:
                    found[name] = border_of(value)
            return results

        return run

    return watch


def departure(border: Border, tensor: torch.Tensor, bound: float) -> str | None:
    """How a tensor departs from what was recorded, as a clause; None within a relative ``bound``.

    Differences are beside the root of the mean square of the recorded tensor.
    """
    if tuple(tensor.shape) != border.shape:
        return f"its shape is {list(tensor.shape)}, {list(border.shape)} is wanted"
    has = border_of(tensor)
    if has.nonfinite != border.nonfinite:
        return f"{has.nonfinite} elements are not finite, {border.nonfinite} should be"
    size = math.hypot(border.mean, border.std)
    pairs = [
        (a, b)
        for a, b in zip(has.sketch, border.sketch, strict=True)
        if a is not None and b is not None
    ]
    error = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / max(len(pairs), 1))
    for what, differs in (
        ("some of its elements differ", error),
        ("its mean differs", abs(has.mean - border.mean)),
        ("its deviation differs", abs(has.std - border.std)),
    ):
        relative = differs / size if size else (math.inf if differs else 0.0)
        if relative > bound:
            return f"{what} by {relative:.3g} of its size, at most {bound:g} is allowed"
    return None


def bound_of(method: Method) -> float:
    """The relative error that is allowed inside a method: its outputs' largest, as they go with the
    types that the model computes in."""
    given = [b["rel_l2"] for b in method.tolerance.values() if b.get("rel_l2") is not None]
    return max(given, default=_default(method))


def _default(method: Method) -> float:
    bounds: Mapping[str, Any] = {"HALF": "float16", "BF16": "bfloat16", "FLOAT": "float32"}
    found = [DEFAULT_TOLERANCE[bounds[o.dtype]] for o in method.outputs if o.dtype in bounds]
    return max((bound["rel_l2"] for bound in found), default=_DEFAULT_BOUND)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    value = tensor.detach().cpu()
    if value.is_complex():
        value = torch.view_as_real(value)
    return value.double().flatten()


def _number(value: float) -> float | None:
    return _rounded(value) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
