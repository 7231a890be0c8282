# SPDX-License-Identifier: Apache-2.0
"""How far answers are from the model's own, output by output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from trtpack_runtime.smoke import compare

Answers = Sequence[torch.Tensor]
"""What one call answers, in the order of the outputs."""


@dataclass(frozen=True)
class Figures:
    """One output over all samples, each figure at its worst.

    ``top1`` is the share of rows whose largest class is the same, where an output looks like a
    classifier's: a row of two numbers or more for each input.
    """

    output: str
    cosine: float
    rel_l2: float
    max_abs: float
    top1: float | None = None

    def value(self, figure: str) -> float | None:
        """A figure by name."""
        values: dict[str, float | None] = asdict(self)
        return values.get(figure)


def figures_of(
    names: Sequence[str], got: Sequence[Answers], wanted: Sequence[Answers]
) -> tuple[Figures, ...]:
    """The figures of each output; those of whole numbers have no rows to agree."""
    found = []
    for index, name in enumerate(names):
        pairs = [(a[index], b[index]) for a, b in zip(got, wanted, strict=True)]
        metrics = [compare(a.to(b.dtype), b) for a, b in pairs]
        found.append(
            Figures(
                name,
                min(m.cosine for m in metrics),
                max(m.rel_l2 for m in metrics),
                max(m.max_abs for m in metrics),
                _agreement(pairs),
            )
        )
    return tuple(found)


def _agreement(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """The share of rows with the same largest class; None where outputs are no classifier's."""
    same = total = 0
    for got, wanted in pairs:
        if got.shape != wanted.shape or wanted.dim() != 2 or wanted.shape[1] < 2:
            return None
        if not wanted.is_floating_point() or not wanted.numel():
            return None
        same += int((got.argmax(1) == wanted.argmax(1)).sum())
        total += wanted.shape[0]
    return same / total if total else None
