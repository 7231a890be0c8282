# SPDX-License-Identifier: Apache-2.0
"""Reads calls that quantize, whichever library's operator they are.

Operators are known by name, since the libraries that define them need not be there.

Sources: ``torch.ao.quantization.fx._decomposed``; ``aten.fake_quantize_*`` in
``native/quantized/FakeQuant*.cpp``; torchao's ``quant_primitives``; ModelOpt's ``tensor_quant``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx
from torch._ops import OpOverload

from trtpack.capture import constant_of

Way = Literal["fake", "quantize", "dequantize"]
Scale = fx.Node | float


@dataclass(frozen=True)
class Call:
    """``x`` in whole numbers from ``low`` to ``high``, or FP8, each worth a ``scale``.

    ``fake`` rounds and answers floats of type ``out``, ``quantize`` answers the whole numbers as
    ``out``, ``dequantize`` reads them. ``axis`` is that of the channels, or of blocks of ``block``
    elements. ``zero`` is the whole number that stands for 0; ``early`` says it is added before
    rounding. ``limit`` stands for a scale of ``limit / high``.
    """

    way: Way
    x: fx.Node
    scale: Scale
    zero: fx.Node | int | None
    low: int
    high: int
    out: torch.dtype
    axis: int | None = None
    block: int | None = None
    early: bool = False
    is_limit: bool = False
    is_fp8: bool = False

    def inverts(self, other: Call) -> bool:
        """Whether this reads exactly what ``other`` writes."""
        mine = (self.scale, self.zero, self.low, self.high, self.axis, self.block)
        theirs = (other.scale, other.zero, other.low, other.high, other.axis, other.block)
        return self.way == "dequantize" and other.way == "quantize" and mine == theirs


def read(node: object) -> Call | None:
    """What a node quantizes; None where it does not, or in a way this does not know."""
    if not isinstance(node, fx.Node) or not isinstance(node.target, OpOverload):
        return None
    reader = _READERS.get(node.target.name())
    return reader(node, _arguments(node, node.target)) if reader else None


def _arguments(node: fx.Node, op: OpOverload) -> dict[str, Any]:
    """A call's arguments by the names of its schema, defaults filled in."""
    schema = op._schema.arguments
    given = {a.name: a.default_value for a in schema if a.has_default_value()}
    given.update(zip((a.name for a in schema), node.args, strict=False))
    return {**given, **node.kwargs}


Reader = Callable[[fx.Node, dict[str, Any]], Call | None]
"""What a call and its arguments by name quantize; None where TensorRT has no like."""


def _pair(way: Way, x: str, scale: str, zero: str) -> Reader:
    """A reader of operators with a scale for all or for each channel."""

    def reader(node: fx.Node, given: dict[str, Any]) -> Call | None:
        low, high = given["quant_min"], given["quant_max"]
        value, out = given[x].meta["val"], given.get("out_dtype")
        if not isinstance(low, int) or not isinstance(high, int) or _is_small_float(given):
            return None
        if way == "quantize":
            out = given["dtype"]
        elif way == "fake":
            if not _is_on(given.get("fake_quant_enabled")):
                return None
            out = value.dtype
        axis, early = given.get("axis"), str(node.target).startswith("aten.")
        axis = None if axis is None else axis % value.dim()
        out = out or torch.float32
        return Call(way, given[x], given[scale], given[zero], low, high, out, axis, early=early)

    return reader


def _is_small_float(given: dict[str, Any]) -> bool:
    """PyTorch rounds to whole numbers before it casts to a float8, which is not FP8's rounding."""
    return isinstance(given.get("dtype"), torch.dtype) and given["dtype"].is_floating_point


def _is_on(enabled: object) -> bool:
    """Whether a fake quantizer's switch is known to be on, or is absent."""
    if isinstance(enabled, fx.Node) and enabled.target is torch.ops.aten.full.default:
        return bool(enabled.args[1])
    value = constant_of(enabled)
    return enabled is None or (value is not None and bool((value != 0).all()))


def _groups(way: Way) -> Reader:
    """A reader of ``quantize_per_channel_group``: rows in groups along the last of two dims."""

    def reader(node: fx.Node, given: dict[str, Any]) -> Call:
        x = given["input"]
        out = given["output_dtype"] if way == "dequantize" else given["dtype"]
        size = min(given["group_size"], int(x.meta["val"].shape[-1]))
        low, high = given["quant_min"], given["quant_max"]
        scale, zero = given["scales"], given["zero_points"]
        return Call(way, x, scale, zero, low, high, out, 1, size)

    return reader


def _affine(way: Way) -> Reader:
    """A reader of torchao's operators, which give every dim a block size."""

    def reader(node: fx.Node, given: dict[str, Any]) -> Call | None:
        x, blocks = given["input"], list(given["block_size"])
        shape = list(x.meta["val"].shape)
        typed = "input_dtype" if way == "dequantize" else "output_dtype"
        dtype, low, high = given[typed], given["quant_min"], given["quant_max"]
        if dtype.is_floating_point or not isinstance(given["scale"], fx.Node):
            return None
        limits = torch.iinfo(dtype)
        low, high = (limits.min if low is None else low), (limits.max if high is None else high)
        call = Call(way, x, given["scale"], given["zero_point"], low, high, given["output_dtype"])
        axes = [i for i, block in enumerate(blocks) if shape[i] != block]
        blocked = [i for i, block in enumerate(blocks) if block != 1]
        if len(axes) < 2 and all(blocks[i] == 1 for i in axes):
            return replace(call, axis=axes[0] if axes else None)
        whole = len(blocked) == 1
        return replace(call, axis=blocked[0], block=blocks[blocked[0]]) if whole else None

    return reader


def _limited(node: fx.Node, given: dict[str, Any]) -> Call | None:
    """ModelOpt gives the largest absolute value instead of a scale."""
    x, amax = given["input"], given["amax"]
    bits, exponent = given["num_bits"], given["exponent_bits"]
    shape, out = list(amax.meta["val"].shape), x.meta["val"].dtype
    channels = [i for i, size in enumerate(shape) if size != 1]
    if len(channels) > 1 or (channels and len(shape) != x.meta["val"].dim()):
        return None
    axis = channels[0] if channels else None
    if (bits, exponent) == (8, 4):
        return Call("fake", x, amax, 0, -448, 448, out, axis, is_limit=True, is_fp8=True)
    if exponent:
        return None
    high = (1 << (bits - 1 + given["unsigned"])) - 1
    low = 0 if given["unsigned"] else -high - (not given["narrow_range"])
    return Call("fake", x, amax, 0, low, high, out, axis, is_limit=True)


_TENSOR = ("input", "scale", "zero_point")
_CHANNEL = ("input", "scales", "zero_points")
_FAKE = ("self", "scale", "zero_point")
_READERS: dict[str, Reader] = {
    "quantized_decomposed::quantize_per_tensor": _pair("quantize", *_TENSOR),
    "quantized_decomposed::quantize_per_tensor.tensor": _pair("quantize", *_TENSOR),
    "quantized_decomposed::dequantize_per_tensor": _pair("dequantize", *_TENSOR),
    "quantized_decomposed::dequantize_per_tensor.tensor": _pair("dequantize", *_TENSOR),
    "quantized_decomposed::quantize_per_channel": _pair("quantize", *_CHANNEL),
    "quantized_decomposed::dequantize_per_channel": _pair("dequantize", *_CHANNEL),
    "quantized_decomposed::quantize_per_channel_group": _groups("quantize"),
    "quantized_decomposed::dequantize_per_channel_group": _groups("dequantize"),
    "quantized_decomposed::fake_quant_per_channel": _pair("fake", *_CHANNEL),
    "aten::fake_quantize_per_tensor_affine": _pair("fake", *_FAKE),
    "aten::fake_quantize_per_tensor_affine.tensor_qparams": _pair("fake", *_FAKE),
    "aten::fake_quantize_per_tensor_affine_cachemask": _pair("fake", *_FAKE),
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _pair("fake", *_FAKE),
    "aten::fake_quantize_per_channel_affine": _pair("fake", *_FAKE),
    "aten::fake_quantize_per_channel_affine_cachemask": _pair("fake", *_FAKE),
    "torchao::quantize_affine": _affine("quantize"),
    "torchao::dequantize_affine": _affine("dequantize"),
    "tensorrt::quantize_op": _limited,
}
