# SPDX-License-Identifier: Apache-2.0
"""What numbers a model's values really are, and what a smaller type would make of them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .rules import MOVES, packet
from .running import run_graph

HEADROOM = 4.0
"""Samples are few: a value that comes this near to a type's end is taken to reach it."""
MOST_LOST = 2.0**-8
"""The share of a value, by its L2 norm, that rounding may take: float16's own is 2^-12 at most,
bfloat16's 2^-9."""


@dataclass(frozen=True)
class Range:
    """A value's numbers and what a type makes of them.

    ``largest`` is the largest finite magnitude, ``lost`` the relative L2 error of rounding all to
    the type, ``vanishing`` the share of the numbers other than 0 that become 0.
    """

    largest: float = 0.0
    lost: float = 0.0
    vanishing: float = 0.0

    def __or__(self, other: Range) -> Range:
        return Range(
            max(self.largest, other.largest),
            max(self.lost, other.lost),
            max(self.vanishing, other.vanishing),
        )

    def overflows(self, dtype: torch.dtype) -> bool:
        """Whether it reaches beyond the type, or nearly so."""
        return self.largest * HEADROOM > torch.finfo(dtype).max

    def underflows(self, dtype: torch.dtype) -> bool:
        """Whether rounding takes more of it than that of numbers well inside the type would."""
        return not self.overflows(dtype) and self.lost > MOST_LOST


def floats(value: Any) -> Iterator[torch.Tensor]:
    """The floating-point tensors of a node's result, one or several."""
    if isinstance(value, torch.Tensor):
        if value.dtype.is_floating_point:
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from floats(item)


def range_of(value: Any, dtype: torch.dtype) -> Range:
    """The range of a result's numbers; those that are not finite are left out.

    What rounding takes is worked out only where it may be more than ``MOST_LOST``, else told as 0:
    no number loses more than half a step of its own size, or half the smallest step there is.
    """
    found = Range()
    for tensor in floats(value):
        numbers = tensor.detach().flatten()
        if not numbers.numel():
            continue
        if not bool(torch.isfinite(torch.stack(torch.aminmax(numbers))).all()):
            numbers = numbers[numbers.isfinite()]
            if not numbers.numel():
                continue
        low, high = torch.aminmax(numbers)
        largest = max(abs(float(low)), abs(float(high)))
        found |= Range(largest)
        smallest_step = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        usual = float(torch.linalg.vector_norm(numbers)) / math.sqrt(numbers.numel())
        if largest and usual < smallest_step / MOST_LOST:
            found |= _rounded(numbers.double(), dtype, largest)
    return found


def _rounded(numbers: torch.Tensor, dtype: torch.dtype, largest: float) -> Range:
    """What becomes of finite numbers, of which some are not 0."""
    rounded = numbers.to(dtype).double()
    lost = float((numbers - rounded).norm() / numbers.norm())
    vanished = int(((rounded == 0) & (numbers != 0)).sum()) / int((numbers != 0).sum())
    return Range(largest, lost, vanished)


def measure(
    module: fx.GraphModule, samples: Iterable[Mapping[str, torch.Tensor]], dtype: torch.dtype
) -> dict[str, Range]:
    """The range of every value of a graph by name, over all samples, its inputs counted in.

    What only moves numbers has the range of what it moves.
    """
    found: dict[str, Range] = {}

    def watch(node: fx.Node, value: Any) -> Any:
        seen = found.get(node.name, Range())
        if node.target is operator.getitem or packet(node.target) in MOVES:
            known = [found.get(source.name) for source in node.all_input_nodes]
            if all(one is not None for one in known):
                found[node.name] = functools.reduce(operator.or_, filter(None, known), seen)
                return value
        found[node.name] = seen | range_of(value, dtype)
        return value

    for sample in samples:
        for name, value in sample.items():
            found[name] = found.get(name, Range()) | range_of(value, dtype)
        run_graph(module, sample, watch)
    return found
