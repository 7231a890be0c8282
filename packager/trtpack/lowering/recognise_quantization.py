# SPDX-License-Identifier: Apache-2.0
"""Finds what is quantized, whichever library did it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from trtpack.capture import constant_of
from trtpack.node_places import where
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE, RANGES

from .graph import add_constant, insert
from .quantized_calls import Call, read

aten = torch.ops.aten
_NEVER_NEGATIVE = frozenset(
    {
        aten.relu.default,
        aten.relu6.default,
        aten.sigmoid.default,
        aten.hardsigmoid.default,
        aten.softmax.int,
        aten._softmax.default,
    }
)


def recognise_quantization(graph: fx.Graph) -> int:
    """Replace quantizing and dequantizing operators by the ones that TensorRT's layers compute.

    TensorRT has no zero point and one range a type. What fits into it is that range after a
    shift is clamped first, so the numbers stay. Anything else, such as all of 256 steps around
    another middle, becomes arithmetic in floats, which is right and no faster than floats are.
    Weights are rounded now: their largest numbers lie between two steps in some libraries, where
    TensorRT, which divides by a scale, could choose the other one.

    Needs:   scales and zero points that follow from constants; which zero points are 0 is taken
             as the model's structure, which new weights keep.
    Keeps:   operators that find their scale while they run, and such as round to other types.
    Returns: how many operators it replaced.
    """
    replaced, known = 0, _known(graph)
    left: list[tuple[fx.Node, Call]] = []
    done: set[fx.Node] = set()
    for node in list(graph.nodes):
        call = read(node)
        if call is None:
            continue
        if call.way == "quantize":
            left.append((node, call))
            continue
        written = read(call.x)
        if written is not None and call.inverts(written):
            call = replace(written, way="fake", out=call.out)
        _replace(graph, node, call, known)
        done.add(node)
        replaced += 1
    for node, call in left:
        if any(user not in done for user in node.users):
            _replace(graph, node, call, known)
        replaced += 1
    return replaced


def _known(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that follow from constants alone."""
    known: set[fx.Node] = set()
    for node in graph.nodes:
        if constant_of(node) is not None or (
            node.op == "call_function" and known.issuperset(node.all_input_nodes)
        ):
            known.add(node)
    return known


def _value(node: fx.Node) -> torch.Tensor:
    """The value of a node that follows from constants."""
    value = constant_of(node)
    if value is not None:
        return value
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), _value)
    assert callable(node.target)
    made: torch.Tensor = node.target(*args, **kwargs)
    return made


def _replace(graph: fx.Graph, node: fx.Node, call: Call, known: set[fx.Node]) -> None:
    with graph.inserting_before(node):
        writer = _Writer(graph, node, call, known)
        made = writer.scaled()
        if made is None:
            made = writer.arithmetic()
            if call.way == "fake":
                assert graph.owning_module is not None
                graph.owning_module.meta.setdefault("unscaled", []).append(where(node))
    if isinstance(node.meta["val"], torch.Tensor):
        node.replace_all_uses_with(made)
        return
    for item in [user for user in node.users if user.args[1] == 0]:
        item.replace_all_uses_with(made)


def _holds(dtype: str, low: float, high: float) -> bool:
    return RANGES[dtype][0] <= low and high <= RANGES[dtype][1]


class _Writer:
    """Writes what one call computes, before the node that was it."""

    def __init__(self, graph: fx.Graph, node: fx.Node, call: Call, known: set[fx.Node]) -> None:
        self.graph, self.node, self.call, self.known = graph, node, call, known
        self.shape = list(call.x.meta["val"].shape)

    def scaled(self) -> fx.Node | None:
        """By ``fake_quantize`` or ``dequantize``; None where their ranges do not hold it."""
        call, zeros = self.call, self._zeros()
        if call.way == "quantize" or zeros is None or not self._knows(call.scale):
            return None
        low, high = call.low - zeros[1], call.high - zeros[0]
        dtype = "FP8" if call.is_fp8 else "INT8"
        if call.block is not None and _holds("INT4", low, high):
            dtype = "INT4"
        weights = self._knows(call.x)
        blocks = call.block is None or (weights and self._has_blocks(dtype))
        if not (blocks and _holds(dtype, low, high)):
            return None
        if weights:
            return self._stored(dtype, zeros)
        if call.way == "dequantize" or zeros[0] != zeros[1]:
            return None
        x, scale = self._typed(call.x, call.out), self._scale()
        x = self._clamped(x, scale, low, high, dtype)
        return self._op(FAKE_QUANTIZE, x, scale, call.axis, dtype)

    def arithmetic(self) -> fx.Node:
        """In floats, as the operators' own kernels compute."""
        call = self.call
        scale, zero = self._spread(self._scale()), self._zero()
        if call.way == "dequantize":
            numbers = self._typed(call.x, torch.float32)
        else:
            numbers = self._rounded(zero)
        if call.way != "quantize":
            if zero is not None:
                numbers = self._op(aten.sub.Tensor, numbers, zero)
            numbers = self._op(aten.mul.Tensor, numbers, scale)
        return self._typed(numbers, call.out)

    def _rounded(self, zero: Any) -> fx.Node:
        """The whole numbers that ``x`` is rounded to, or those of E4M3, in float32."""
        call = self.call
        numbers = self._op(
            aten.mul.Tensor, self._typed(call.x, torch.float32), self._spread(self._inverse())
        )
        if call.early and zero is not None:
            numbers = self._op(aten.add.Tensor, numbers, zero)
        if not call.is_fp8:
            numbers = self._op(aten.round.default, numbers)
        if not call.early and zero is not None:
            numbers = self._op(aten.add.Tensor, numbers, zero)
        return self._op(aten.clamp.default, numbers, call.low, call.high)

    def _op(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        made = insert(self.graph, self.node, target, *args, **kwargs)
        if self.known.issuperset(made.all_input_nodes):
            self.known.add(made)
        return made

    def _knows(self, value: Any) -> bool:
        return not isinstance(value, fx.Node) or value in self.known

    def _typed(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        same = node.meta["val"].dtype == dtype
        return node if same else self._op(aten._to_copy.default, node, dtype=dtype)

    def _zeros(self) -> tuple[int, int] | None:
        """The least and the largest zero point; None where they are not known."""
        zero = self.call.zero
        if zero is None or isinstance(zero, int):
            return (zero or 0,) * 2
        if zero not in self.known:
            return None
        value = _value(zero)
        if not value.numel() or bool((value.float() != value.float().round()).any()):
            return None
        return int(value.min()), int(value.max())

    def _zero(self) -> Any:
        """The zero point as arithmetic takes it; None for 0."""
        zero = self.call.zero
        if self._zeros() == (0, 0):
            return None
        if not isinstance(zero, fx.Node):
            return zero
        return self._spread(self._typed(self._shaped(zero), torch.float32))

    def _scale(self) -> fx.Node:
        """The scale in float32: no dim, one for each channel, or one for each block."""
        call = self.call
        if not isinstance(call.scale, fx.Node):
            name = add_constant(self.graph, f"{self.node.name}|scale", torch.tensor(call.scale))
            found = self.graph.get_attr(name)
            self.known.add(found)
            return found
        scale = self._shaped(self._typed(call.scale, torch.float32))
        return self._op(aten.div.Tensor, scale, call.high) if call.is_limit else scale

    def _inverse(self) -> fx.Node:
        """What numbers are multiplied by, as every library has it."""
        if not self.call.is_limit or not isinstance(self.call.scale, fx.Node):
            return self._op(aten.reciprocal.default, self._scale())
        limit = self._shaped(self._typed(self.call.scale, torch.float32))
        return self._op(aten.div.Tensor, self._op(aten.full.default, [], self.call.high), limit)

    def _shaped(self, node: fx.Node) -> fx.Node:
        call = self.call
        shape: list[int] = []
        if call.block is not None and call.axis is not None:
            shape = [*self.shape]
            shape[call.axis] //= call.block
        elif call.axis is not None:
            shape = [self.shape[call.axis]]
        same = list(node.meta["val"].shape) == shape
        return node if same else self._op(aten.reshape.default, node, shape)

    def _spread(self, scale: fx.Node) -> fx.Node:
        """The scale in a shape that meets ``x``."""
        axis, block = self.call.axis, self.call.block
        if axis is None:
            return scale
        if block is not None:
            return self._op(aten.repeat_interleave.self_int, scale, block, axis)
        return self._op(aten.reshape.default, scale, [-1] + [1] * (len(self.shape) - axis - 1))

    def _has_blocks(self, dtype: str) -> bool:
        """Whether TensorRT has blocks along that axis: one of the last two in INT4. Of other types
        they can be the rows of a matrix along the last."""
        rank = len(self.shape)
        axes = (rank - 1, rank - 2) if dtype == "INT4" else (rank - 1,)
        return rank >= 2 and self.call.axis in axes

    def _stored(self, dtype: str, zeros: tuple[int, int]) -> fx.Node:
        """Weights, rounded now where they are not yet, as their library rounds."""
        stored, call = self.call.x, self.call
        if call.way == "fake":
            stored = self._rounded(self._zero())
        if zeros != (0, 0):
            wide = self._typed(stored, torch.int32)
            zero = call.zero
            if isinstance(zero, fx.Node):
                zero = self._spread(self._typed(self._shaped(zero), torch.int32))
            stored = self._op(aten.sub.Tensor, wide, zero)
        stored = self._typed(stored, torch.float8_e4m3fn if dtype == "FP8" else torch.int8)
        return self._op(DEQUANTIZE, stored, self._scale(), call.axis, dtype, call.out)

    def _clamped(self, x: fx.Node, scale: fx.Node, low: int, high: int, dtype: str) -> fx.Node:
        """``x`` within the range, where that is less than the type's."""
        least, most = RANGES[dtype]
        sides = [(aten.maximum.default, low)] if low > least else []
        if low == 0 and self.call.x.target in _NEVER_NEGATIVE:
            sides = []
        if high < most:
            sides.append((aten.minimum.default, high))
        for target, bound in sides:
            limit = self._op(aten.mul.Tensor, self._spread(scale), bound)
            x = self._op(target, x, self._typed(limit, x.meta["val"].dtype))
        return x
