# SPDX-License-Identifier: Apache-2.0
"""How large a size can become, whatever the inputs and the data are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trtpack_runtime import dims
from trtpack_runtime.dims import Atom, Dim


class Bounds:
    """Upper bounds of sizes.

    ``largest`` gives the inputs' largest shapes; ``limit`` bounds what only the data tells.
    """

    def __init__(self, largest: Mapping[str, Sequence[int]] | None = None) -> None:
        shapes = (largest or {}).items()
        self._dims: dict[Dim, float] = {
            dims.dim(name, axis): size for name, shape in shapes for axis, size in enumerate(shape)
        }

        self._of_data: set[str] = set()

    def limit(self, size: Dim, most: float) -> None:
        """Says that a dim, which only the data tells, is never above ``most``."""
        self._dims[size] = min(most, self._dims.get(size, math.inf))
        self._of_data.update(dims.tensors_in(size))

    def only_data_tells(self, size: Dim) -> bool:
        """Whether a size depends on what ``limit`` was told of."""
        return not self._of_data.isdisjoint(dims.tensors_in(size))

    def at_most(self, size: Dim) -> float:
        """The largest a size can be; infinite where nothing tells."""
        if isinstance(size, int):
            return size
        return sum(
            coefficient * math.prod(map(self._atom, monomial))
            for monomial, coefficient in size.terms
            if coefficient > 0
        )

    def _atom(self, atom: Atom) -> float:
        if atom.op == "dim":
            return self._dims.get(dims.dim(*atom.args), math.inf)
        a, b = map(self.at_most, atom.args)
        match atom.op:
            case "//":
                return a // b if isinstance(atom.args[1], int) else a
            case "%":
                return b - 1
            case "min":
                return min(a, b)
            case _:
                return max(a, b)
