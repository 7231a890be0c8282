# SPDX-License-Identifier: Apache-2.0
"""Rules of the layers that compute each element on its own."""

from __future__ import annotations

from trtpack_runtime.dims import product
from trtpack_runtime.layers import FLOATS, INTS, NUMBERS, QUANTIZED
from trtpack_runtime.network import Tensor

from .rules import (
    Mismatch,
    Results,
    broadcast_shapes,
    require,
    require_axis,
    require_broadcastable,
    require_rank,
    require_type,
    require_volume,
    rule,
)

_BOOL = frozenset({"BOOL"})
_SIGNED = NUMBERS | {"INT8"}
_BESIDE_UINT8 = {"FLOAT", "HALF"}
_ONLY_SCALED = {"FP8", "INT4"}
_UNARY_TYPES = {"NOT": _BOOL, "ABS": _SIGNED, "NEG": _SIGNED, "SIGN": _SIGNED}
_ELEMENTWISE_TYPES = {
    "AND": _BOOL,
    "OR": _BOOL,
    "XOR": _BOOL,
    "EQUAL": NUMBERS | _BOOL,
}
_TAKE_ALPHA = frozenset(
    [
        "LEAKY_RELU",
        "ELU",
        "SELU",
        "SOFTPLUS",
        "CLIP",
        "HARD_SIGMOID",
        "SCALED_TANH",
        "THRESHOLDED_RELU",
    ]
)
_TAKE_BETA = frozenset(["SELU", "SOFTPLUS", "CLIP", "HARD_SIGMOID", "SCALED_TANH"])
_ANSWER_BOOL = frozenset({"AND", "OR", "XOR", "EQUAL", "GREATER", "LESS"})


@rule
def activation(
    input: Tensor, type: str, alpha: float | None = None, beta: float | None = None
) -> Results:
    require_type("input", input, NUMBERS if type == "RELU" else FLOATS)
    for name, value, takers in (("alpha", alpha, _TAKE_ALPHA), ("beta", beta, _TAKE_BETA)):
        verb = "needs" if type in takers else "takes no"
        require((value is not None) == (type in takers), f"attribute {name}: {type} {verb} {name}")
    return [(input.dtype, input.shape)]


@rule
def unary(input: Tensor, op: str) -> Results:
    require_type("input", input, _UNARY_TYPES.get(op, FLOATS))
    return [("BOOL" if op in ("ISNAN", "ISINF") else input.dtype, input.shape)]


@rule
def elementwise(input1: Tensor, input2: Tensor, op: str) -> Results:
    require_type("input1", input1, _ELEMENTWISE_TYPES.get(op, NUMBERS))
    shape = broadcast_shapes(("input1", "input2"), (input1, input2))
    return [("BOOL" if op in _ANSWER_BOOL else input1.dtype, shape)]


@rule
def select(condition: Tensor, then_input: Tensor, else_input: Tensor) -> Results:
    names = ("condition", "then_input", "else_input")
    return [(then_input.dtype, broadcast_shapes(names, (condition, then_input, else_input)))]


@rule
def cast(input: Tensor, to_type: str) -> Results:
    types = {input.dtype, to_type}
    scaled = "".join(sorted(types & _ONLY_SCALED)[:1])
    require(not scaled, f"{scaled} comes from quantize, goes to dequantize")
    met = "UINT8" not in types or not _BESIDE_UINT8.isdisjoint(types)
    require(met, f"UINT8 is cast from and to FLOAT and HALF, got {input.dtype} to {to_type}")
    return [(to_type, input.shape)]


@rule
def identity(input: Tensor) -> Results:
    return [(input.dtype, input.shape)]


@rule
def parametric_relu(input: Tensor, slopes: Tensor) -> Results:
    require_broadcastable("slopes", slopes, input.shape)
    return [(input.dtype, input.shape)]


@rule
def scale_nd(
    input: Tensor,
    mode: str,
    channel_axis: int,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    power: Tensor | None = None,
) -> Results:
    require(input.rank >= 4, f"operand input: wanted rank 4 or more, got {input}")
    require_axis("channel_axis", channel_axis, input.rank)
    # elementwise coefficients are shared by the batch
    shape = {"UNIFORM": (), "CHANNEL": (input.shape[channel_axis],)}.get(mode, input.shape[1:])
    for name, weights in (("shift", shift), ("scale", scale), ("power", power)):
        if weights is not None:
            if isinstance(product(shape), int):
                require_volume(f"operand {name}", weights.shape, shape)
            else:
                raise Mismatch(f"operand {name}: {mode} needs static sizes, got input {input}")
    return [(input.dtype, input.shape)]


@rule
def quantize(input: Tensor, scale: Tensor, output_type: str, axis: int | None = None) -> Results:
    require(output_type in QUANTIZED, f"attribute output_type: got {output_type}")
    require_type("scale", scale, frozenset({"FLOAT", input.dtype}))
    _require_scale(input, scale, axis, output_type)
    return [(output_type, input.shape)]


@rule
def dequantize(input: Tensor, scale: Tensor, output_type: str, axis: int | None = None) -> Results:
    require(output_type in FLOATS, f"attribute output_type: got {output_type}")
    require_type("scale", scale, frozenset({"FLOAT", output_type}))
    _require_scale(input, scale, axis, input.dtype)
    return [(output_type, input.shape)]


def _require_scale(input: Tensor, scale: Tensor, axis: int | None, quantized: str) -> None:
    """One scale, one for each channel along ``axis``, or one for each block of INT4."""
    require(input.rank >= 1, f"operand input: wanted rank 1 or more, got {input}")
    if quantized == "INT4":
        return _require_blocks(input, scale)
    require_rank("scale", scale, 0, 1)
    if scale.rank == 1:
        if axis is None:
            raise Mismatch("attribute axis: a scale for every channel needs it")
        require_axis("axis", axis, input.rank)
        require_volume("operand scale", scale.shape, (input.shape[axis],))
    return None


def _require_blocks(input: Tensor, scale: Tensor) -> None:
    """INT4 has blocks along the last dim or the one before, of sizes TensorRT must know."""
    require(input.rank >= 2, f"operand input: wanted rank 2 or more for INT4, got {input}")
    require_rank("scale", scale, input.rank)
    sizes = zip(input.shape, scale.shape, strict=True)
    blocked = [axis for axis, (size, count) in enumerate(sizes) if size != count]
    fits = blocked in ([], [input.rank - 1], [input.rank - 2]) and all(
        isinstance(size, int) and isinstance(count, int) and count > 0 and size % count == 0
        for size, count in ((input.shape[axis], scale.shape[axis]) for axis in blocked)
    )
    require(fits, f"operand scale: wanted one for each block of one of the last dims, got {scale}")


@rule
def cumulative(input: Tensor, op: str, axis: int, exclusive: bool, reverse: bool) -> Results:
    require_type("input", input, FLOATS | INTS)
    require_axis("axis", axis, input.rank)
    return [(input.dtype, input.shape)]
