# SPDX-License-Identifier: Apache-2.0
"""The operator that rotary position embeddings of lowered graphs are, for which ATen has no name.

``x`` is made of pairs, its first and its second half, or, ``interleaved``, every other element.
Each pair is turned by an angle:

    first * cos - second * sin,  second * cos + first * sin

``cos`` and ``sin`` are half as wide as ``x`` and broadcast to its pairs. Converters know the
operator; what runs in PyTorch has its parts instead (``lowering/expand_composites.py``), since a
device's PyTorch knows ATen only.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("trtpack", "DEF")
_LIBRARY.define("rotary_embedding(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor")


@torch.library.impl(_LIBRARY, "rotary_embedding", "CompositeImplicitAutograd")
def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The operator by its parts.

    Shapes: x (..., n), n even; cos and sin (..., n / 2).
    Dtypes: all three of one floating-point type.
    """
    dim = -1 if interleaved else -2
    pairs = (-1, 2) if interleaved else (2, -1)
    first, second = x.reshape(*x.shape[:-1], *pairs).unbind(dim)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.stack(turned, dim).reshape(x.shape)


ROTARY = torch.ops.trtpack.rotary_embedding.default
