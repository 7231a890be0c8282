# SPDX-License-Identifier: Apache-2.0
"""Layers of a double that choose, move, make or cast values."""

from __future__ import annotations

import ctypes
from typing import Any

from trtpack_runtime.dims import Dim, product

from .rows import Read, Rows, axes_of, declared, input_of, optional, sizes_of

ROWS = Rows()
row = ROWS.row


@row(
    "add_topk",
    "ITopKLayer",
    "TOPK",
    "input",
    "op k axes indices_type",
    op="TopKOperation",
    outputs=2,
)
def _topk(layer: Any) -> Read:
    given = {
        "op": layer._value("op").name,
        "k": layer._value("k"),
        "axes": axes_of(layer._value("axes")),
    }
    return {"input": input_of(layer)}, _indices_type(layer, given)


def _indices_type(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    if layer._is_set("indices_type"):
        given["indices_type"] = layer._value("indices_type").name
    return given


@row("add_non_zero", "INonZeroLayer", "NON_ZERO", "input", "indices_type")
def _non_zero(layer: Any) -> Read:
    return {"input": input_of(layer)}, _indices_type(layer, {})


@row(
    "add_nms",
    "INMSLayer",
    "NMS",
    "boxes scores max_output_boxes_per_class",
    "indices_type",
    outputs=2,
)
def _nms(layer: Any) -> Read:
    limits = [layer._inputs[i] for i in (2, 3, 4)]
    if [limit.dtype.name for limit in limits] != ["INT32", "FLOAT", "FLOAT"]:
        raise ValueError("INMSLayer: the limits are INT32, FLOAT and FLOAT")
    if any(limit._dims() for limit in limits):
        raise ValueError("INMSLayer: the limits are 0-D")
    (most,) = limits[0]._sizes() or (None,)
    if most is None:
        raise ValueError("INMSLayer: the most boxes are no shape tensor")
    given = {
        "max_output_boxes_per_class": most,
        "iou_threshold": _number(limits[1]),
        "score_threshold": _number(limits[2]),
        "bounding_box_format": layer.bounding_box_format.name,
    }
    given = optional(layer, ("topk_box_limit",), given)
    return {"boxes": input_of(layer), "scores": input_of(layer, 1)}, _indices_type(layer, given)


def _number(tensor: Any) -> float:
    """The value of a constant FLOAT."""
    weights = tensor._layer._value("weights")
    return float(ctypes.c_float.from_address(weights._ptr).value)


@row(
    "add_gather_v2",
    "IGatherLayer",
    "GATHER",
    "input indices",
    "mode",
    kind="gather",
    mode="GatherMode",
)
def _gather(layer: Any) -> Read:
    given = {"mode": layer._value("mode").name, "axis": layer._value("axis")}
    operands = {"input": input_of(layer), "indices": input_of(layer, 1)}
    return operands, optional(layer, ("num_elementwise_dims",), given)


@row("add_scatter", "IScatterLayer", "SCATTER", "data indices updates", "mode", mode="ScatterMode")
def _scatter(layer: Any) -> Read:
    names = ("data", "indices", "updates")
    operands = {name: input_of(layer, i) for i, name in enumerate(names)}
    return operands, optional(layer, ("axis",), {"mode": layer._value("mode").name})


@row("add_shuffle", "IShuffleLayer", "SHUFFLE", "input")
def _shuffle(layer: Any) -> Read:
    given = optional(layer, ("first_transpose", "second_transpose"), {})
    dims = layer._inputs[0]._dims()
    order = given.get("first_transpose", tuple(range(len(dims))))
    if len(layer._inputs) > 1 or layer._is_set("reshape_dims"):
        sizes = sizes_of(layer, 1, layer._value("reshape_dims") or (), "IShuffleLayer")
        given["reshape_dims"] = _reshaped(layer, tuple(dims[axis] for axis in order), sizes)
    return {"input": input_of(layer)}, given


def _reshaped(layer: Any, dims: tuple[Dim, ...], sizes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """With 0 as the input's size where that is asked for, and -1 as what is left over."""
    zero = layer._value("zero_is_placeholder")
    kept = tuple(dims[i] if size == 0 and zero else size for i, size in enumerate(sizes))
    open_sizes = [i for i, size in enumerate(kept) if isinstance(size, int) and size == -1]
    if len(open_sizes) > 1:
        raise ValueError("only one size of a reshape may be -1")
    for index in open_sizes:
        rest = product(tuple(size for i, size in enumerate(kept) if i != index))
        if isinstance(rest, int) and rest == 0:
            raise ValueError("a reshape of no elements leaves -1 open")
        kept = (*kept[:index], product(dims) // rest, *kept[index + 1 :])
    return kept


@row("add_slice", "ISliceLayer", "SLICE", "input", "start shape stride")
def _slice(layer: Any) -> Read:
    names = ("start", "shape", "stride")
    given: dict[str, Any] = {
        name: sizes_of(layer, i, layer._value(name), "ISliceLayer")
        for i, name in enumerate(names, 1)
    }
    operands = {"input": input_of(layer)}
    if len(layer._inputs) > 4 and layer._inputs[4] is not None:
        operands["fill"] = input_of(layer, 4)
    return operands, given | {"mode": layer.mode.name}


@row("add_concatenation", "IConcatenationLayer", "CONCATENATION", "*inputs")
def _concatenation(layer: Any) -> Read:
    tensors = [declared(tensor) for tensor in layer._inputs]
    return {"inputs": tensors}, {"axis": layer._value("axis")}


@row("add_select", "ISelectLayer", "SELECT", "condition then_input else_input")
def _select(layer: Any) -> Read:
    names = ("condition", "then_input", "else_input")
    return {name: input_of(layer, i) for i, name in enumerate(names)}, {}


@row("add_cast", "ICastLayer", "CAST", "input", "to_type", to_type="DataType")
def _cast(layer: Any) -> Read:
    return {"input": input_of(layer)}, {"to_type": layer._value("to_type").name}


@row("add_identity", "IIdentityLayer", "IDENTITY", "input")
def _identity(layer: Any) -> Read:
    return {"input": input_of(layer)}, {}


@row("add_resize", "IResizeLayer", "RESIZE", "input")
def _resize(layer: Any) -> Read:
    given: dict[str, Any] = {
        "resize_mode": layer.resize_mode.name,
        "coordinate_transformation": layer.coordinate_transformation.name,
        "selector_for_single_pixel": layer.selector_for_single_pixel.name,
        "nearest_rounding": layer.nearest_rounding.name,
    }
    given = optional(layer, ("scales", "cubic_coeff", "exclude_outside"), given)
    if len(layer._inputs) > 1 or layer._is_set("shape"):
        given["shape"] = sizes_of(layer, 1, layer._value("shape") or (), "IResizeLayer")
    return {"input": input_of(layer)}, given


@row(
    "add_fill",
    "IFillLayer",
    "FILL",
    "",
    "shape op:operation output_type:to_type",
    op="FillOperation",
    output_type="DataType",
)
def _fill(layer: Any) -> Read:
    names = (None, "alpha_tensor", "beta_tensor")
    operands = {
        name: input_of(layer, i)
        for i, name in enumerate(names)
        if name and i < len(layer._inputs) and layer._inputs[i] is not None
    }
    dtype = layer._value("to_type") or layer._types.get(0) or layer._trt.DataType.FLOAT
    return operands, {
        "shape": sizes_of(layer, 0, layer._value("shape"), "IFillLayer"),
        "op": layer._value("operation").name,
        "output_type": dtype.name,
    }


@row("add_one_hot", "IOneHotLayer", "ONE_HOT", "indices values depth", "axis")
def _one_hot(layer: Any) -> Read:
    (depth,) = layer._inputs[2]._sizes() or (0,)
    operands = {"indices": input_of(layer), "values": input_of(layer, 1)}
    return operands, {"depth": depth, "axis": layer._value("axis")}
