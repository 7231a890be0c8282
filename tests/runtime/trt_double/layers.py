# SPDX-License-Identifier: Apache-2.0
"""Layers of a double: what an ``add_*`` call makes, read back as a row of the portable network.

Reading back is the other half of ``engines/_layers.py``, written from TensorRT's documentation: it
sees only what a real release would have been told. Types and shapes follow from that by ``infer``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtpack_runtime.dims import Dim, product
from trtpack_runtime.network import Tensor

Read = tuple[dict[str, Any], dict[str, Any]]
"""Operands and attributes, as ``infer`` takes them."""


@dataclass(frozen=True)
class Row:
    """What one ``add_*`` makes: ``inputs`` and ``properties`` are its parameters' names."""

    kind: str
    layer: str
    type: str
    inputs: tuple[str, ...]
    read: Callable[[Any], Read]
    properties: Mapping[str, str] = field(default_factory=dict)
    enums: Mapping[str, str] = field(default_factory=dict)
    outputs: int = 1


ROWS: dict[str, Row] = {}


def row(
    method: str,
    layer: str,
    type: str,
    inputs: str,
    properties: str = "",
    *,
    kind: str = "",
    outputs: int = 1,
    **enums: str,
) -> Callable[[Callable[[Any], Read]], Callable[[Any], Read]]:
    """Registers a reader; ``properties`` are ``parameter`` or ``parameter:property``."""
    named = dict((item.split(":") * 2)[:2] for item in properties.split())

    def register(read: Callable[[Any], Read]) -> Callable[[Any], Read]:
        ROWS[method] = Row(
            kind or method.removeprefix("add_"),
            layer,
            type,
            tuple(inputs.split()),
            read,
            named,
            {name.rstrip("_"): enum for name, enum in enums.items()},
            outputs,
        )
        return read

    return register


def axes_of(mask: int) -> tuple[int, ...]:
    """A bit mask of axes."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)


def _declared(tensor: Any) -> Tensor:
    return Tensor(tensor.name, tensor.dtype.name, tensor._dims())


def _input(layer: Any, index: int = 0) -> Tensor:
    return _declared(layer._inputs[index])


def _optional(layer: Any, names: Sequence[str], attributes: dict[str, Any]) -> dict[str, Any]:
    """With the properties somebody has set."""
    return attributes | {n: _plain(layer._value(n)) for n in names if layer._is_set(n)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _sizes(layer: Any, index: int, given: Any, method: str) -> tuple[Dim, ...]:
    """Sizes a shape tensor gives, else the ones that were given as numbers."""
    tensor = layer._inputs[index] if index < len(layer._inputs) else None
    if tensor is None:
        return tuple(given)
    value = tensor._sizes()
    if value is None:
        raise ValueError(f"{method}: input {index} is no shape tensor")
    return tuple(value)


@row("add_activation", "IActivationLayer", "ACTIVATION", "input", "type", type_="ActivationType")
def _activation(layer: Any) -> Read:
    given = {"type": layer._value("type").name}
    return {"input": _input(layer)}, _optional(layer, ("alpha", "beta"), given)


@row("add_unary", "IUnaryLayer", "UNARY", "input", "op", op="UnaryOperation")
def _unary(layer: Any) -> Read:
    given, op = _input(layer), layer._value("op").name
    if layer._network._wide == "INT32" and (op, given.dtype) == ("NEG", "INT32"):
        raise ValueError("operation NEG not allowed on type Int32")  # as 8.6.0 says
    return {"input": given}, {"op": op}


@row(
    "add_elementwise",
    "IElementWiseLayer",
    "ELEMENTWISE",
    "input1 input2",
    "op",
    op="ElementWiseOperation",
)
def _elementwise(layer: Any) -> Read:
    operands = {"input1": _input(layer), "input2": _input(layer, 1)}
    return operands, {"op": layer._value("op").name}


@row(
    "add_matrix_multiply",
    "IMatrixMultiplyLayer",
    "MATRIX_MULTIPLY",
    "input0 input1",
    "op0 op1",
    op0="MatrixOperation",
    op1="MatrixOperation",
)
def _matrix_multiply(layer: Any) -> Read:
    operands = {"input0": _input(layer), "input1": _input(layer, 1)}
    return operands, {name: layer._value(name).name for name in ("op0", "op1")}


def _windowed(layer: Any, transposed: bool) -> Read:
    maps, groups = layer._value("num_output_maps"), layer._value("num_groups")
    shape = tuple(layer._value("kernel_size_nd"))
    channels = layer._inputs[0]._dims()[1]
    sides = (channels, maps // groups) if transposed else (maps, channels // groups)
    operands = {"input": _input(layer)}
    if len(layer._inputs) > 1 and layer._inputs[1] is not None:
        operands["kernel"] = _input(layer, 1)
    else:
        operands["kernel"] = _weights(layer, "kernel", (*sides, *shape))
    if layer._value("bias") is not None and len(layer._value("bias")):
        operands["bias"] = _weights(layer, "bias", (maps,))
    names = ("stride_nd", "pre_padding", "post_padding", "dilation_nd")
    given = {n: tuple(layer._value(n) or ((n[0] in "sd") * 1,) * len(shape)) for n in names}
    return operands, given | {
        "num_output_maps": maps,
        "kernel_shape": shape,
        "num_groups": groups,
    }


def _weights(layer: Any, name: str, shape: tuple[Any, ...]) -> Tensor:
    weights = layer._value(name)
    if len(weights) != math.prod(shape):
        raise ValueError(f"{name} has {len(weights)} elements, wanted {list(shape)}")
    return Tensor(name, weights.dtype.name, shape)


_CONVOLUTION = "num_output_maps kernel_shape:kernel_size_nd kernel bias"


@row("add_convolution_nd", "IConvolutionLayer", "CONVOLUTION", "input", _CONVOLUTION)
def _convolution(layer: Any) -> Read:
    return _windowed(layer, transposed=False)


@row("add_deconvolution_nd", "IDeconvolutionLayer", "DECONVOLUTION", "input", _CONVOLUTION)
def _deconvolution(layer: Any) -> Read:
    return _windowed(layer, transposed=True)


@row(
    "add_pooling_nd",
    "IPoolingLayer",
    "POOLING",
    "input",
    "type window_size:window_size_nd",
    type_="PoolingType",
)
def _pooling(layer: Any) -> Read:
    names = ("stride_nd", "pre_padding", "post_padding", "average_count_excludes_padding")
    given = {
        "type": layer._value("type").name,
        "window_size": tuple(layer._value("window_size_nd")),
        "padding_mode": layer.padding_mode.name,
    }
    return {"input": _input(layer)}, _optional(layer, names, given)


@row(
    "add_scale_nd",
    "IScaleLayer",
    "SCALE",
    "input",
    "mode shift scale power channel_axis",
    mode="ScaleMode",
)
def _scale(layer: Any) -> Read:
    mode, axis = layer._value("mode").name, layer._value("channel_axis")
    dims = layer._inputs[0]._dims()
    shape = {"UNIFORM": (), "CHANNEL": (dims[axis],)}.get(mode, dims[1:])
    operands = {"input": _input(layer)}
    for name in ("shift", "scale", "power"):
        if layer._value(name) is not None and len(layer._value(name)):
            operands[name] = _weights(layer, name, shape)
    return operands, {"mode": mode, "channel_axis": axis}


def _normalization(layer: Any) -> Read:
    operands = {name: _input(layer, i) for i, name in enumerate(("input", "scale", "bias"))}
    given = {"axes": axes_of(layer._value("axes")), "epsilon": layer._value("epsilon")}
    return operands, _optional(layer, ("num_groups",), given)


for _method in ("add_normalization", "add_normalization_v2"):
    row(_method, "INormalizationLayer", "NORMALIZATION", "input scale bias", "axesMask:axes")(
        _normalization
    )


@row("add_softmax", "ISoftMaxLayer", "SOFTMAX", "input")
def _softmax(layer: Any) -> Read:
    return {"input": _input(layer)}, {"axes": axes_of(layer._value("axes"))}


@row("add_reduce", "IReduceLayer", "REDUCE", "input", "op axes keep_dims", op="ReduceOperation")
def _reduce(layer: Any) -> Read:
    given = {"op": layer._value("op").name, "axes": axes_of(layer._value("axes"))}
    return {"input": _input(layer)}, given | {"keep_dims": layer._value("keep_dims")}


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
    return {"input": _input(layer)}, _indices_type(layer, given)


def _indices_type(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    if layer._is_set("indices_type"):
        given["indices_type"] = layer._value("indices_type").name
    return given


@row("add_non_zero", "INonZeroLayer", "NON_ZERO", "input", "indices_type")
def _non_zero(layer: Any) -> Read:
    return {"input": _input(layer)}, _indices_type(layer, {})


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
    given = _optional(layer, ("topk_box_limit",), given)
    return {"boxes": _input(layer), "scores": _input(layer, 1)}, _indices_type(layer, given)


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
    operands = {"input": _input(layer), "indices": _input(layer, 1)}
    return operands, _optional(layer, ("num_elementwise_dims",), given)


@row("add_scatter", "IScatterLayer", "SCATTER", "data indices updates", "mode", mode="ScatterMode")
def _scatter(layer: Any) -> Read:
    names = ("data", "indices", "updates")
    operands = {name: _input(layer, i) for i, name in enumerate(names)}
    return operands, _optional(layer, ("axis",), {"mode": layer._value("mode").name})


@row("add_shuffle", "IShuffleLayer", "SHUFFLE", "input")
def _shuffle(layer: Any) -> Read:
    given = _optional(layer, ("first_transpose", "second_transpose"), {})
    dims = layer._inputs[0]._dims()
    order = given.get("first_transpose", tuple(range(len(dims))))
    if len(layer._inputs) > 1 or layer._is_set("reshape_dims"):
        sizes = _sizes(layer, 1, layer._value("reshape_dims") or (), "IShuffleLayer")
        given["reshape_dims"] = _reshaped(layer, tuple(dims[axis] for axis in order), sizes)
    return {"input": _input(layer)}, given


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
        name: _sizes(layer, i, layer._value(name), "ISliceLayer") for i, name in enumerate(names, 1)
    }
    operands = {"input": _input(layer)}
    if len(layer._inputs) > 4 and layer._inputs[4] is not None:
        operands["fill"] = _input(layer, 4)
    return operands, given | {"mode": layer.mode.name}


@row("add_concatenation", "IConcatenationLayer", "CONCATENATION", "*inputs")
def _concatenation(layer: Any) -> Read:
    tensors = [_declared(tensor) for tensor in layer._inputs]
    return {"inputs": tensors}, {"axis": layer._value("axis")}


@row("add_select", "ISelectLayer", "SELECT", "condition then_input else_input")
def _select(layer: Any) -> Read:
    names = ("condition", "then_input", "else_input")
    return {name: _input(layer, i) for i, name in enumerate(names)}, {}


@row("add_cast", "ICastLayer", "CAST", "input", "to_type", to_type="DataType")
def _cast(layer: Any) -> Read:
    return {"input": _input(layer)}, {"to_type": layer._value("to_type").name}


@row("add_identity", "IIdentityLayer", "IDENTITY", "input")
def _identity(layer: Any) -> Read:
    return {"input": _input(layer)}, {}


@row("add_resize", "IResizeLayer", "RESIZE", "input")
def _resize(layer: Any) -> Read:
    given: dict[str, Any] = {
        "resize_mode": layer.resize_mode.name,
        "coordinate_transformation": layer.coordinate_transformation.name,
        "selector_for_single_pixel": layer.selector_for_single_pixel.name,
        "nearest_rounding": layer.nearest_rounding.name,
    }
    given = _optional(layer, ("scales", "cubic_coeff", "exclude_outside"), given)
    if len(layer._inputs) > 1 or layer._is_set("shape"):
        given["shape"] = _sizes(layer, 1, layer._value("shape") or (), "IResizeLayer")
    return {"input": _input(layer)}, given


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
        name: _input(layer, i)
        for i, name in enumerate(names)
        if name and i < len(layer._inputs) and layer._inputs[i] is not None
    }
    dtype = layer._value("to_type") or layer._types.get(0) or layer._trt.DataType.FLOAT
    return operands, {
        "shape": _sizes(layer, 0, layer._value("shape"), "IFillLayer"),
        "op": layer._value("operation").name,
        "output_type": dtype.name,
    }


@row("add_one_hot", "IOneHotLayer", "ONE_HOT", "indices values depth", "axis")
def _one_hot(layer: Any) -> Read:
    (depth,) = layer._inputs[2]._sizes() or (0,)
    operands = {"indices": _input(layer), "values": _input(layer, 1)}
    return operands, {"depth": depth, "axis": layer._value("axis")}


@row("add_einsum", "IEinsumLayer", "EINSUM", "*inputs", "equation")
def _einsum(layer: Any) -> Read:
    tensors = [_declared(tensor) for tensor in layer._inputs]
    return {"inputs": tensors}, {"equation": layer._value("equation")}


@row("add_grid_sample", "IGridSampleLayer", "GRID_SAMPLE", "input grid")
def _grid_sample(layer: Any) -> Read:
    return {"input": _input(layer), "grid": _input(layer, 1)}, {
        "interpolation_mode": layer.interpolation_mode.name,
        "align_corners": layer._value("align_corners"),
        "sample_mode": layer.sample_mode.name,
    }


@row("add_parametric_relu", "IParametricReLULayer", "PARAMETRIC_RELU", "input slopes")
def _parametric_relu(layer: Any) -> Read:
    return {"input": _input(layer), "slopes": _input(layer, 1)}, {}


@row(
    "add_cumulative",
    "ICumulativeLayer",
    "CUMULATIVE",
    "input axis",
    "op exclusive reverse",
    op="CumulativeOperation",
)
def _cumulative(layer: Any) -> Read:
    (axis,) = layer._inputs[1]._sizes() or (-1,)
    given = {name: layer._value(name) for name in ("exclusive", "reverse")}
    return {"input": _input(layer)}, given | {"op": layer._value("op").name, "axis": axis}


def _attention(layer: Any) -> Read:
    operands = {name: _input(layer, i) for i, name in enumerate(("query", "key", "value"))}
    if layer._value("mask") is not None:
        operands["mask"] = _declared(layer._value("mask"))
    kind = layer._value("causal_kind")
    return operands, {
        "normalization_op": layer._value("norm_op").name,
        "causal": layer._value("causal") if kind is None else kind.name != "NONE",
        "decomposable": layer._value("decomposable"),
    }


row(
    "add_attention",
    "IAttention",
    "",
    "query key value",
    "norm_op causal",
    norm_op="AttentionNormalizationOp",
)(_attention)
row(
    "add_attention_v2",
    "IAttention",
    "",
    "query key value",
    "norm_op causal_kind",
    kind="attention",
    norm_op="AttentionNormalizationOp",
    causal_kind="CausalMaskKind",
)(_attention)


@row(
    "add_rotary_embedding",
    "IRotaryEmbeddingLayer",
    "ROTARY_EMBEDDING",
    "input cos_cache sin_cache",
    "interleaved rotary_embedding_dim",
)
def _rotary_embedding(layer: Any) -> Read:
    if layer._value("rotary_embedding_dim") != 0:
        raise ValueError("IRotaryEmbeddingLayer: only a part of the last dim is turned")
    operands = {name: _input(layer, i) for i, name in enumerate(("input", "cos", "sin"))}
    return operands, {"interleaved": layer._value("interleaved")}


def _scaled(layer: Any) -> Read:
    dtype = layer._value("to_type") or layer._types.get(0) or layer._usual_type()
    given = _optional(layer, ("axis",), {"output_type": dtype.name})
    scale = _input(layer, 1)
    if layer._release == "8.6" and scale.dtype != "FLOAT":
        raise ValueError(f"the scale must be FLOAT, got {scale.dtype}")
    return {"input": _input(layer), "scale": scale}, given


for _name in ("Quantize", "Dequantize"):
    row(
        f"add_{_name.lower()}",
        f"I{_name}Layer",
        _name.upper(),
        "input scale",
        "output_type:to_type",
        output_type="DataType",
    )(_scaled)

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "IConvolutionLayer": {"num_groups": 1},
    "IDeconvolutionLayer": {"num_groups": 1},
    "INormalizationLayer": {"epsilon": 1e-5, "num_groups": 1},
    "IShuffleLayer": {"zero_is_placeholder": True},
    "IConcatenationLayer": {"axis": 0},
    "IGatherLayer": {"axis": 0},
    "IGridSampleLayer": {"align_corners": False},
    "IAttention": {"decomposable": False, "causal": False},
    "ISoftMaxLayer": {"axes": 1},
}
"""Values of properties that nobody has set; enum properties have their first member."""

ENUM_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    "IPoolingLayer": {"padding_mode": "PaddingMode.EXPLICIT_ROUND_DOWN"},
    "ISliceLayer": {"mode": "SampleMode.STRICT_BOUNDS"},
    "IResizeLayer": {
        "resize_mode": "InterpolationMode.NEAREST",
        "coordinate_transformation": "ResizeCoordinateTransformation.ASYMMETRIC",
        "selector_for_single_pixel": "ResizeSelector.FORMULA",
        "nearest_rounding": "ResizeRoundMode.FLOOR",
    },
    "IGridSampleLayer": {
        "interpolation_mode": "InterpolationMode.LINEAR",
        "sample_mode": "SampleMode.STRICT_BOUNDS",
    },
    "ITopKLayer": {"indices_type": "DataType.INT32"},
    "INonZeroLayer": {"indices_type": "DataType.INT32"},
    "INMSLayer": {
        "indices_type": "DataType.INT32",
        "bounding_box_format": "BoundingBoxFormat.CORNER_PAIRS",
    },
}
"""Enum properties with TensorRT's default; another type than the enum's is refused."""


@row("add_plugin_v2", "IPluginV2Layer", "PLUGIN_V2", "*inputs", "plugin", kind="plugin")
@row("add_plugin_v3", "IPluginV3Layer", "PLUGIN_V3", "*inputs", "plugin", kind="plugin")
def _plugin(layer: Any) -> Read:
    inputs = tuple(map(_declared, layer._inputs))
    return {"inputs": inputs}, layer._value("plugin")._told(inputs)
