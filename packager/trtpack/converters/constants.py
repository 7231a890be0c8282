# SPDX-License-Identifier: Apache-2.0
"""The values behind a network's constants."""

from __future__ import annotations

import math
from typing import Any

import torch


class Constants:
    """The values behind a network's constants: stored name -> tensor, and how to derive them.

    ``tables`` are those that follow from no parameter, which new weights leave as they are.
    """

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}
        self.recipes: dict[str, dict[str, Any]] = {}
        self.tables: set[str] = set()

    def put(self, name: str, value: torch.Tensor, recipe: dict[str, Any] | None = None) -> str:
        """Keeps a value under ``name``, or under a numbered name where another value has it."""
        candidate, n = name, 1
        while candidate in self.values and not _same(self.values[candidate], value):
            n += 1
            candidate = f"{name}.{n}"
        self.values.setdefault(candidate, value)
        if recipe is not None:
            self.recipes.setdefault(candidate, recipe)
        return candidate

    def put_table(
        self, name: str, value: torch.Tensor, recipe: dict[str, Any] | None = None
    ) -> str:
        """Keeps a value that follows from no parameter; a recipe makes it part of others'."""
        stored = self.put(name, value, recipe)
        self.tables.add(stored)
        return stored

    def can_meet(self, *names: str) -> bool:
        """Whether a constant derived from these has a recipe, or needs none."""
        known = [name not in self.tables or name in self.recipes for name in names]
        return all(known) or self.tables.issuperset(names)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
        return True
    return torch.equal(a, b) or (
        a.is_floating_point()
        and math.prod(a.shape) > 0
        and bool(torch.isnan(a).any())
        and torch.equal(a.nan_to_num(), b.nan_to_num())
    )
