# SPDX-License-Identifier: Apache-2.0
"""Layers of a double that compute: products, windows, norms, reductions, attention, plugins."""

from __future__ import annotations

import math
from typing import Any

from trtpack_runtime.network import Tensor

from .rows import Read, Rows, axes_of, declared, input_of, optional

ROWS = Rows()
row = ROWS.row


@row("add_activation", "IActivationLayer", "ACTIVATION", "input", "type", type_="ActivationType")
def _activation(layer: Any) -> Read:
    given = {"type": layer._value("type").name}
    return {"input": input_of(layer)}, optional(layer, ("alpha", "beta"), given)


@row("add_unary", "IUnaryLayer", "UNARY", "input", "op", op="UnaryOperation")
def _unary(layer: Any) -> Read:
    given, op = input_of(layer), layer._value("op").name
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
    operands = {"input1": input_of(layer), "input2": input_of(layer, 1)}
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
    operands = {"input0": input_of(layer), "input1": input_of(layer, 1)}
    return operands, {name: layer._value(name).name for name in ("op0", "op1")}


def _windowed(layer: Any, transposed: bool) -> Read:
    maps, groups = layer._value("num_output_maps"), layer._value("num_groups")
    shape = tuple(layer._value("kernel_size_nd"))
    channels = layer._inputs[0]._dims()[1]
    sides = (channels, maps // groups) if transposed else (maps, channels // groups)
    operands = {"input": input_of(layer)}
    if len(layer._inputs) > 1 and layer._inputs[1] is not None:
        operands["kernel"] = input_of(layer, 1)
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
    return {"input": input_of(layer)}, optional(layer, names, given)


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
    operands = {"input": input_of(layer)}
    for name in ("shift", "scale", "power"):
        if layer._value(name) is not None and len(layer._value(name)):
            operands[name] = _weights(layer, name, shape)
    return operands, {"mode": mode, "channel_axis": axis}


def _normalization(layer: Any) -> Read:
    operands = {name: input_of(layer, i) for i, name in enumerate(("input", "scale", "bias"))}
    given = {"axes": axes_of(layer._value("axes")), "epsilon": layer._value("epsilon")}
    return operands, optional(layer, ("num_groups",), given)


for _method in ("add_normalization", "add_normalization_v2"):
    row(_method, "INormalizationLayer", "NORMALIZATION", "input scale bias", "axesMask:axes")(
        _normalization
    )


@row("add_softmax", "ISoftMaxLayer", "SOFTMAX", "input")
def _softmax(layer: Any) -> Read:
    return {"input": input_of(layer)}, {"axes": axes_of(layer._value("axes"))}


@row("add_reduce", "IReduceLayer", "REDUCE", "input", "op axes keep_dims", op="ReduceOperation")
def _reduce(layer: Any) -> Read:
    given = {"op": layer._value("op").name, "axes": axes_of(layer._value("axes"))}
    return {"input": input_of(layer)}, given | {"keep_dims": layer._value("keep_dims")}


@row("add_einsum", "IEinsumLayer", "EINSUM", "*inputs", "equation")
def _einsum(layer: Any) -> Read:
    tensors = [declared(tensor) for tensor in layer._inputs]
    return {"inputs": tensors}, {"equation": layer._value("equation")}


@row("add_grid_sample", "IGridSampleLayer", "GRID_SAMPLE", "input grid")
def _grid_sample(layer: Any) -> Read:
    return {"input": input_of(layer), "grid": input_of(layer, 1)}, {
        "interpolation_mode": layer.interpolation_mode.name,
        "align_corners": layer._value("align_corners"),
        "sample_mode": layer.sample_mode.name,
    }


@row("add_parametric_relu", "IParametricReLULayer", "PARAMETRIC_RELU", "input slopes")
def _parametric_relu(layer: Any) -> Read:
    return {"input": input_of(layer), "slopes": input_of(layer, 1)}, {}


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
    return {"input": input_of(layer)}, given | {"op": layer._value("op").name, "axis": axis}


def _attention(layer: Any) -> Read:
    operands = {name: input_of(layer, i) for i, name in enumerate(("query", "key", "value"))}
    if layer._value("mask") is not None:
        operands["mask"] = declared(layer._value("mask"))
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
    operands = {name: input_of(layer, i) for i, name in enumerate(("input", "cos", "sin"))}
    return operands, {"interleaved": layer._value("interleaved")}


def _scaled(layer: Any) -> Read:
    dtype = layer._value("to_type") or layer._types.get(0) or layer._usual_type()
    given = optional(layer, ("axis",), {"output_type": dtype.name})
    scale = input_of(layer, 1)
    if layer._release == "8.6" and scale.dtype != "FLOAT":
        raise ValueError(f"the scale must be FLOAT, got {scale.dtype}")
    return {"input": input_of(layer), "scale": scale}, given


for _name in ("Quantize", "Dequantize"):
    row(
        f"add_{_name.lower()}",
        f"I{_name}Layer",
        _name.upper(),
        "input scale",
        "output_type:to_type",
        output_type="DataType",
    )(_scaled)


@row("add_plugin_v2", "IPluginV2Layer", "PLUGIN_V2", "*inputs", "plugin", kind="plugin")
@row("add_plugin_v3", "IPluginV3Layer", "PLUGIN_V3", "*inputs", "plugin", kind="plugin")
def _plugin(layer: Any) -> Read:
    inputs = tuple(map(declared, layer._inputs))
    return {"inputs": inputs}, layer._value("plugin")._told(inputs)
