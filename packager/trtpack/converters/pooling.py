# SPDX-License-Identifier: Apache-2.0
"""Max and average pooling with windows of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import unless_floats
from .registry import converter
from .running import worst
from .sort import ranked

aten = torch.ops.aten
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A pooling window along every spatial dim of an image or a volume."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    ceil_mode: bool

    @property
    def volume(self) -> int:
        """How many elements it covers."""
        return math.prod(self.kernel)

    @property
    def always_starts_inside(self) -> bool:
        """Whether even the last rounded-up window starts before the padding behind the input.

        PyTorch drops one that does not.
        """
        each = zip(self.kernel, self.stride, self.padding, strict=True)
        return all((p + s if p else s) <= k for k, s, p in each)

    def overhang(self, size: Sequence[Dim], count: Sequence[Dim]) -> tuple[Dim, ...]:
        """How far the last of ``count`` windows reaches beyond the input."""
        return tuple(
            (n - 1) * s + d * (k - 1) + 1 - length - p
            for n, length, k, s, p, d in zip(
                count, size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )


def _unordered(*, target: Target, self: Tensor, **_: Any) -> str | None:
    whole = self.dtype in ("INT32", "INT64") and target.tensorrt_at_least("10.0")
    return None if whole else unless_floats(self=self)


@converter(aten.max_pool1d.default, when=_unordered)
def max_pool1d(ctx: Context, **arguments: Any) -> Tensor:
    """max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1]
    dilation=1, bool ceil_mode=False) -> Tensor
    """
    return _max_pool(ctx, 1, **arguments)


@converter(aten.max_pool2d.default, when=_unordered)
def max_pool2d(ctx: Context, **arguments: Any) -> Tensor:
    """max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2]
    dilation=1, bool ceil_mode=False) -> Tensor

    A dilated window, and one of whole numbers, is a gather of its elements and a maximum.

    Shapes: with or without a batch dim; batch and sizes may be dynamic.
    Dtypes: float16, bfloat16, float32; int32 and int64 from TensorRT 10.0 on.
    Source: torch.nn.MaxPool2d, including the dropped last window of ``ceil_mode``.
    """
    return _max_pool(ctx, 2, **arguments)


@converter(aten.max_pool3d.default, when=_unordered)
def max_pool3d(ctx: Context, **arguments: Any) -> Tensor:
    """max_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3]
    dilation=1, bool ceil_mode=False) -> Tensor
    """
    return _max_pool(ctx, 3, **arguments)


@converter(aten.max_pool2d_with_indices.default, when=_unordered)
def max_pool2d_with_indices(ctx: Context, **arguments: Any) -> tuple[Tensor, Tensor]:
    """max_pool2d_with_indices(Tensor self, int[2] kernel_size, int[2] stride=[], int[2]
    padding=0, int[2] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)

    The layers of the indices fall away where nothing uses them.
    """
    return _max_pool(ctx, 2, **arguments), _best(ctx, 2, **arguments)


@converter(aten.max_pool3d_with_indices.default, when=_unordered)
def max_pool3d_with_indices(ctx: Context, **arguments: Any) -> tuple[Tensor, Tensor]:
    """max_pool3d_with_indices(Tensor self, int[3] kernel_size, int[3] stride=[], int[3]
    padding=0, int[3] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)
    """
    return _max_pool(ctx, 3, **arguments), _best(ctx, 3, **arguments)


@converter(aten.avg_pool1d.default, when=unless_floats)
def avg_pool1d(ctx: Context, **arguments: Any) -> Tensor:
    """avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, bool
    ceil_mode=False, bool count_include_pad=True) -> Tensor
    """
    return _avg_pool(ctx, 1, **arguments)


@converter(aten.avg_pool2d.default, when=unless_floats)
def avg_pool2d(ctx: Context, **arguments: Any) -> Tensor:
    """avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool
    ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor

    ``count_include_pad`` counts the padding asked for, never what ``ceil_mode`` adds.

    Shapes: with or without a batch dim; batch and sizes may be dynamic.
    Dtypes: float16, bfloat16, float32.
    Source: torch.nn.AvgPool2d.
    """
    return _avg_pool(ctx, 2, **arguments)


@converter(aten.avg_pool3d.default, when=unless_floats)
def avg_pool3d(ctx: Context, **arguments: Any) -> Tensor:
    """avg_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, bool
    ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor
    """
    return _avg_pool(ctx, 3, **arguments)


def pool(
    ctx: Context,
    type: str,
    x: Tensor,
    window: Window,
    post_padding: Sequence[Dim],
    *,
    round_up: bool = False,
    counts_padding: bool = False,
) -> Tensor:
    """A pooling layer over the last two or three dims.

    An average that counts padding is never rounded up: TensorRT then divides by the whole window,
    where PyTorch leaves out what reaches beyond the padded input.
    """
    assert not (round_up and type == "AVERAGE")
    return ctx.add(
        "pooling_nd",
        {"input": x},
        type=type,
        window_size=window.kernel,
        stride_nd=window.stride,
        pre_padding=window.padding,
        post_padding=post_padding,
        padding_mode="EXPLICIT_ROUND_UP" if round_up else "EXPLICIT_ROUND_DOWN",
        average_count_excludes_padding=not counts_padding if type == "AVERAGE" else None,
    )


def _largest(ctx: Context, x: Tensor, window: Window, count: Sequence[Dim]) -> Tensor:
    if not window.ceil_mode:
        return pool(ctx, "MAX", x, window, window.padding)
    if dims.is_static(x.shape[2:]):
        return pool(ctx, "MAX", x, window, _behind(x, window, count))
    out = pool(ctx, "MAX", x, window, window.padding, round_up=True)
    if window.always_starts_inside:
        return out
    return ctx.slice(out, (0,) * out.rank, (*out.shape[:2], *count))


def _mean(
    ctx: Context, x: Tensor, window: Window, count: Sequence[Dim], *, counts_padding: bool
) -> Tensor:
    counts_padding = counts_padding and (any(window.padding) or window.ceil_mode)
    if not window.ceil_mode:
        return pool(ctx, "AVERAGE", x, window, window.padding, counts_padding=counts_padding)
    if dims.is_static(x.shape[2:]):
        behind = _behind(x, window, count)
        return pool(ctx, "AVERAGE", x, window, behind, counts_padding=counts_padding)
    whole = _reached(ctx, x, window, count)
    bare = Window(window.kernel, window.stride, (0,) * len(count), window.dilation, False)
    out = pool(ctx, "AVERAGE", whole, bare, bare.padding)
    if counts_padding:
        return out
    one = ctx.ramp((1, 1, *x.shape[2:]), (0,) * x.rank, 1)
    share = pool(
        ctx, "AVERAGE", _reached(ctx, ctx.cast(one, x.dtype), window, count), bare, bare.padding
    )
    return ctx.elementwise("DIV", out, share)


def _behind(x: Tensor, window: Window, count: Sequence[Dim]) -> tuple[Dim, ...]:
    """The padding behind a static input that gives exactly ``count`` windows."""
    return tuple(dims.maximum(o, 0) for o in window.overhang(x.shape[2:], count))


def _reached(
    ctx: Context, x: Tensor, window: Window, count: Sequence[Dim], fill: Tensor | None = None
) -> Tensor:
    """Exactly what the windows cover: padded in front and behind, cut where no window reaches."""
    over = window.overhang(x.shape[2:], count)
    sizes = [d + p + o for d, p, o in zip(x.shape[2:], window.padding, over, strict=True)]
    start = (0, 0, *(-p for p in window.padding))
    return ctx.slice(x, start, (*x.shape[:2], *sizes), mode="FILL", fill=fill)


def _padded(ctx: Context, x: Tensor, window: Window) -> tuple[Tensor, Window]:
    """The input with its padding as zeros, and the window without it."""
    sizes = [d + 2 * p for d, p in zip(x.shape[2:], window.padding, strict=True)]
    start = (0, 0, *(-p for p in window.padding))
    x = ctx.slice(x, start, (*x.shape[:2], *sizes), mode="FILL")
    none = (0,) * len(window.padding)
    return x, Window(window.kernel, window.stride, none, window.dilation, window.ceil_mode)


def _windows(ctx: Context, x: Tensor, window: Window, count: Sequence[Dim]) -> Tensor:
    """(N * C, count, kernel, count, kernel, ...): every window's elements, the least outside.

    Batch and channels are one dimension, since a gather of TensorRT 8.6 answers at most seven.
    """
    padded = any(window.padding) or window.ceil_mode
    if padded:
        x = _reached(ctx, x, window, count, ctx.scalar(worst(ctx, "MAX", x.dtype), x.dtype))
    each = zip(count, window.kernel, window.stride, window.dilation, strict=True)
    x = ctx.reshape(x, (dims.product(x.shape[:2]), *x.shape[2:]))
    for i, (n, k, stride, dilation) in enumerate(each):
        x = ctx.gather(x, ctx.ramp((n, k), (stride, dilation)), 1 + 2 * i)
    return x


def _max_pool(ctx: Context, spatial: int, self: Tensor, **arguments: Any) -> Tensor:
    window, x = _window(spatial, **arguments), as_image(ctx, self, spatial)
    count = as_sizes(ctx.result, spatial)
    if max(window.dilation) == 1 and x.dtype in FLOATS:
        return ctx.reshape(_largest(ctx, x, window, count), ctx.result.shape)
    inside = _windows(ctx, x, window, count)
    axes = tuple(range(2, inside.rank, 2))
    return ctx.reshape(ctx.reduce("MAX", inside, axes, keep_dims=False), ctx.result.shape)


def _best(ctx: Context, spatial: int, self: Tensor, **arguments: Any) -> Tensor:
    """Where in its image or volume each window's maximum is."""
    window, x = _window(spatial, **arguments), as_image(ctx, self, spatial)
    count = as_sizes(ctx.result, spatial)
    inside = _windows(ctx, x, window, count)
    windows = range(1, inside.rank, 2)
    flat = ctx.add(
        "shuffle",
        {"input": inside},
        first_transpose=(0, *windows, *(axis + 1 for axis in windows)),
        reshape_dims=(*x.shape[:2], dims.product(count), window.volume),
    )
    _, best = ranked(ctx, "MAX", flat, 1, 3)
    strides = [dims.product(x.shape[3 + i :]) for i in range(spatial)]
    steps = _products(window.dilation, strides)
    offsets = ctx.reshape(ctx.ramp(window.kernel, steps), (window.volume,))
    offset = ctx.reshape(ctx.gather(offsets, best, 0), (*x.shape[:2], *count))
    before: Dim = sum(_products(window.padding, strides))
    first = ctx.ramp(count, _products(window.stride, strides), -before)
    return ctx.reshape(ctx.elementwise("SUM", offset, first), ctx.result.shape)


def _avg_pool(
    ctx: Context,
    spatial: int,
    self: Tensor,
    count_include_pad: bool,
    divisor_override: int | None = None,
    **arguments: Any,
) -> Tensor:
    window, x = _window(spatial, **arguments), as_image(ctx, self, spatial)
    count = as_sizes(ctx.result, spatial)
    if divisor_override:
        mean = _mean(ctx, x, window, count, counts_padding=True)
        out = ctx.elementwise("PROD", mean, window.volume / divisor_override)
    elif not window.ceil_mode:
        out = _mean(ctx, x, window, count, counts_padding=count_include_pad)
    else:
        if count_include_pad and any(window.padding):
            x, window = _padded(ctx, x, window)
        out = _mean(ctx, x, window, count, counts_padding=False)
    return ctx.reshape(out, ctx.result.shape)


def _window(
    spatial: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    dilation: Sequence[int] = (1,),
) -> Window:
    """The window of the arguments; along one dim it is one of an image of height 1."""

    def each(values: Sequence[int], across: int) -> Ints:
        values = tuple(values) * (spatial if len(values) == 1 else 1)
        return (across, *values) if spatial == 1 else values

    return Window(
        each(kernel_size, 1),
        each(stride or kernel_size, 1),
        each(padding, 0),
        each(dilation, 1),
        ceil_mode,
    )


def as_image(ctx: Context, x: Tensor, spatial: int) -> Tensor:
    """``x`` with a batch and a channel dim and at least two spatial dims, as TensorRT pools."""
    lead = x.shape[: x.rank - spatial]
    return ctx.reshape(x, (*(1,) * (2 - len(lead)), *lead, *as_sizes(x, spatial)))


def as_sizes(x: Tensor, spatial: int) -> tuple[Dim, ...]:
    """The spatial sizes of ``as_image``."""
    sizes = x.shape[x.rank - spatial :]
    return (1, *sizes) if spatial == 1 else sizes


def _products(a: Sequence[int], b: Sequence[Dim]) -> list[Dim]:
    return [x * y for x, y in zip(a, b, strict=True)]
