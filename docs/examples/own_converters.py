# SPDX-License-Identifier: Apache-2.0
"""The converter of soft_clip.py: tanh(x / limit) * limit is one layer of TensorRT."""

from __future__ import annotations

from trtpack.converters import Context, Tensor, converter


@converter("examples::soft_clip")
def soft_clip(ctx: Context, x: Tensor, limit: float) -> Tensor:
    """soft_clip(Tensor x, float limit) -> Tensor"""
    return ctx.activation("SCALED_TANH", x, alpha=limit, beta=1 / limit)
