# SPDX-License-Identifier: Apache-2.0
"""Images taken apart into the patches under a sliding window, and put together from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .convolution import convolution
from .refusals import Refused, unless_floats
from .registry import converter

aten = torch.ops.aten


@converter(aten.im2col.default)
def im2col(
    ctx: Context,
    self: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) ->
    Tensor

    ``F.unfold``: rows and columns are gathered, one after the other.

    Shapes: (C, H, W) or (N, C, H, W); all but the kernel may be dynamic.
    Dtypes: all.
    Source: torch.nn.Unfold.
    """
    *lead, height, width = self.shape
    n, x = len(lead), self
    if any(padding):
        before = (*(0,) * n, *(-p for p in padding))
        sizes = (*lead, height + 2 * padding[0], width + 2 * padding[1])
        x = ctx.slice(x, before, sizes, mode="FILL")
    for i in range(2):
        count = _count(self.shape[n + i], kernel_size[i], dilation[i], padding[i], stride[i])
        x = ctx.gather(x, ctx.ramp((kernel_size[i], count), (dilation[i], stride[i])), n + 2 * i)
    return _in_order(ctx, x, (*range(n), n, n + 2, n + 1, n + 3))


@converter(aten.col2im.default, when=unless_floats)
def col2im(
    ctx: Context,
    self: Tensor,
    output_size: Sequence[Dim],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """col2im(Tensor self, SymInt[2] output_size, int[2] kernel_size, int[2] dilation, int[2]
    padding, int[2] stride) -> Tensor

    ``F.fold``: a transposed convolution of every channel, whose kernels put each element of a patch
    in its place; patches side by side are only put in order.

    Shapes: (C * kernel, L) or (N, C * kernel, L); N and sizes may be dynamic, C only where
        patches lie side by side.
    Dtypes: float16, bfloat16, float32.
    Source: torch.nn.Fold.
    """
    rows, columns = kernel_size
    channels = ctx.result.shape[-3]
    each = zip(output_size, kernel_size, dilation, padding, stride, strict=True)
    down, across = counts = [_count(*window) for window in each]
    batch = self.shape[0] if self.rank == 3 else 1
    side_by_side = list(stride) == list(kernel_size) and not any(padding)
    covered = [n * k for n, k in zip(counts, kernel_size, strict=True)]
    if side_by_side and max(dilation) == 1 and covered == list(output_size):
        apart = ctx.reshape(self, (batch, channels, rows, columns, down, across))
        return _in_order(ctx, apart, (0, 1, 4, 2, 5, 3))
    if not isinstance(channels, int):
        raise Refused("the number of channels is dynamic")
    patches = ctx.reshape(self, (batch, channels * rows * columns, down, across))
    out = _put_together(ctx, patches, channels, kernel_size, dilation, stride)
    return _fitted(ctx, out, padding, output_size)


def _in_order(ctx: Context, x: Tensor, order: Sequence[int]) -> Tensor:
    """Dims in another order, and joined to the result's."""
    return ctx.add("shuffle", {"input": x}, first_transpose=order, reshape_dims=ctx.result.shape)


def _put_together(
    ctx: Context,
    patches: Tensor,
    channels: int,
    kernel: Sequence[int],
    dilation: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """The patches with what they pad, which the last one need not do on both sides alike."""
    volume = math.prod(kernel)
    places = torch.eye(volume).view(volume, 1, *kernel).repeat(channels, 1, 1, 1)
    weight = ctx.cast(ctx.constant(places, "places"), patches.dtype)
    return convolution(ctx, patches, weight, None, stride, (0, 0), dilation, True, (0, 0), channels)


def _fitted(ctx: Context, x: Tensor, padding: Sequence[int], size: Sequence[Dim]) -> Tensor:
    """What lies between the padding, and zeros where no patch reaches."""
    shape = (*x.shape[:2], *size)
    if shape != x.shape or any(padding):
        x = ctx.slice(x, (0, 0, *padding), shape, mode="FILL")
    return ctx.reshape(x, ctx.result.shape)


def _count(size: Dim, kernel: int, dilation: int, padding: int, stride: int) -> Dim:
    """How many patches begin along a dim."""
    return dims.floordiv(size + 2 * padding - dilation * (kernel - 1) - 1, stride) + 1
