# SPDX-License-Identifier: Apache-2.0
"""Writes out, for PyTorch, operators that only TensorRT is to have whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE, RANGES
from trtpack.rotary_embedding import ROTARY

from .graph import insert
from .match import arguments

aten = torch.ops.aten


def expand_composites(graph: fx.Graph) -> int:
    """Replace operators of our own, and ``rms_norm``, by their parts, which take their name.

    Devices may have PyTorch 2.3, which has no ``rms_norm``, and have ATen only.

    Needs:   nothing.
    Keeps:   ``rms_norm`` of other types than float32, float16 and bfloat16.
    Returns: how many it replaced.
    """
    expanded = 0
    for target, parts in _PARTS.items():
        for node in graph.find_nodes(op="call_function", target=target):
            if node.meta["val"].dtype not in (torch.float32, torch.float16, torch.bfloat16):
                continue

            def op(target: Any, *args: Any, node: fx.Node = node, **kwargs: Any) -> fx.Node:
                return insert(graph, node, target, *args, **kwargs)

            with graph.inserting_before(node):
                made = parts(op, **arguments(node))
            node.replace_all_uses_with(made)
            graph.erase_node(node)
            made.name = node.name
            expanded += 1
    return expanded


def _rotary(
    op: Callable[..., fx.Node], x: fx.Node, cos: fx.Node, sin: fx.Node, interleaved: bool
) -> fx.Node:
    shape = list(x.meta["val"].shape)
    dim, pairs = (-1, [shape[-1] // 2, 2]) if interleaved else (-2, [2, shape[-1] // 2])
    seen = op(aten.reshape.default, x, [*shape[:-1], *pairs])
    first, second = (op(aten.select.int, seen, dim, i) for i in (0, 1))

    def turned(target: Any, a: fx.Node, b: fx.Node) -> fx.Node:
        return op(target, op(aten.mul.Tensor, a, cos), op(aten.mul.Tensor, b, sin))

    both = [turned(aten.sub.Tensor, first, second), turned(aten.add.Tensor, second, first)]
    return op(aten.reshape.default, op(aten.stack.default, both, dim), shape)


def _rms_norm(
    op: Callable[..., fx.Node],
    input: fx.Node,
    normalized_shape: list[Any],
    weight: fx.Node | None,
    eps: float | None,
) -> fx.Node:
    wide = _float32(op, input)
    dims = list(range(-len(normalized_shape), 0))
    mean = op(aten.mean.dim, op(aten.mul.Tensor, wide, wide), dims, True)
    epsilon = torch.finfo(torch.float32).eps if eps is None else eps
    normal = op(aten.mul.Tensor, wide, op(aten.rsqrt.default, op(aten.add.Tensor, mean, epsilon)))
    if weight is not None:
        normal = op(aten.mul.Tensor, normal, _float32(op, weight))
    return _typed(op, normal, input.meta["val"].dtype)


def _float32(op: Callable[..., fx.Node], node: fx.Node) -> fx.Node:
    narrow = node.meta["val"].dtype != torch.float32
    return op(aten._to_copy.default, node, dtype=torch.float32) if narrow else node


def _fake_quantize(
    op: Callable[..., fx.Node], x: fx.Node, scale: fx.Node, axis: int | None, dtype: str
) -> fx.Node:
    low, high = RANGES[dtype]
    scale = _spread(op, scale, x, axis)
    numbers = op(aten.div.Tensor, _float32(op, x), scale)
    if dtype == "FP8":
        numbers = op(aten.clamp.default, numbers, low, high)
        numbers = op(aten._to_copy.default, numbers, dtype=torch.float8_e4m3fn)
        numbers = op(aten._to_copy.default, numbers, dtype=torch.float32)
    else:
        numbers = op(aten.clamp.default, op(aten.round.default, numbers), low, high)
    return _typed(op, op(aten.mul.Tensor, numbers, scale), x.meta["val"].dtype)


def _dequantize(
    op: Callable[..., fx.Node],
    stored: fx.Node,
    scale: fx.Node,
    axis: int | None,
    dtype: str,
    out: torch.dtype,
) -> fx.Node:
    numbers = op(aten._to_copy.default, stored, dtype=torch.float32)
    return _typed(op, op(aten.mul.Tensor, numbers, _spread(op, scale, stored, axis)), out)


def _spread(op: Callable[..., fx.Node], scale: fx.Node, x: fx.Node, axis: int | None) -> fx.Node:
    """A scale for all, for channels or for blocks in a shape that meets ``x``."""
    shape, scales = x.meta["val"].shape, scale.meta["val"].shape
    if axis is None or len(scales) == 0:
        return scale
    if len(scales) == 1:
        return op(aten.reshape.default, scale, [-1] + [1] * (len(shape) - axis - 1))
    return op(aten.repeat_interleave.self_int, scale, shape[axis] // scales[axis], axis)


def _typed(op: Callable[..., fx.Node], node: fx.Node, dtype: torch.dtype) -> fx.Node:
    return node if dtype == torch.float32 else op(aten._to_copy.default, node, dtype=dtype)


_PARTS: Mapping[Any, Callable[..., fx.Node]] = {
    ROTARY: _rotary,
    FAKE_QUANTIZE: _fake_quantize,
    DEQUANTIZE: _dequantize,
    aten.rms_norm.default: _rms_norm,
}
