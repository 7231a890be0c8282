# SPDX-License-Identifier: Apache-2.0
"""Transposes and reshapes in a row, as the one layer TensorRT has for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

Order = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """``source`` transposed by ``first``, reshaped to ``shape``, transposed by ``second``.

    None stands for a step that is not made.
    """

    source: Tensor
    first: Order | None = None
    shape: tuple[Dim, ...] | None = None
    second: Order | None = None

    def reshaped(self, made: Tensor, shape: tuple[Dim, ...]) -> Move:
        """This move with a reshape behind it; ``made`` is what this move made."""
        if self.second is not None:
            return Move(made, shape=shape)
        return Move(self.source, self.first, shape)

    def permuted(self, order: Order) -> Move:
        """This move with a transpose behind it."""
        if self.shape is None:
            return Move(self.source, _composed(self.first, order))
        return Move(self.source, self.first, self.shape, _composed(self.second, order))

    @property
    def changes_nothing(self) -> bool:
        """Whether the source is the answer."""
        transposed = self.first is not None or self.second is not None
        return not transposed and self.shape in (None, self.source.shape)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of a ``shuffle`` layer."""
        return {
            "first_transpose": self.first,
            "reshape_dims": self.shape,
            "second_transpose": self.second,
        }


def _composed(first: Order | None, then: Order) -> Order | None:
    """Two transposes as one; None where they cancel each other."""
    order = then if first is None else tuple(first[d] for d in then)
    return None if order == tuple(range(len(order))) else order
