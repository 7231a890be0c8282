# SPDX-License-Identifier: Apache-2.0
"""One emitting function a layer kind: which ``add_*`` call and which setters it takes.

A function's parameters are the emitter, the kind's operands (TensorRT tensors, weights where the
table says so) and its attributes as the network has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from trtpack_runtime.dims import Dim, Expr

if TYPE_CHECKING:
    from ._emit import Emitter

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Added:
    """The layers a kind became, and its output tensors."""

    layers: Sequence[Any]
    tensors: Sequence[Any]


EMITTERS: dict[str, Callable[..., Added]] = {}
F = TypeVar("F", bound=Callable[..., Added])


def emitter(function: F) -> F:
    """Registers the emitting function of the kind it is named after."""
    if function.__name__ in EMITTERS:
        raise ValueError(f"two emitters for {function.__name__}")
    EMITTERS[function.__name__] = function
    return function


def one(e: Emitter, added: Any) -> Added:
    """A single layer with a single output."""
    return Added((e.made(added),), (added.get_output(0),))


def mask(axes: Ints) -> int:
    """Axes as TensorRT's bit mask."""
    return sum(1 << axis for axis in axes)


def as_type(e: Emitter, tensor: Any, dtype: str) -> Any:
    """A tensor in a type, cast where it has another."""
    if tensor.dtype == e.dtype(dtype):
        return tensor
    return e.made(e.definition.add_cast(tensor, e.dtype(dtype))).get_output(0)


def number(e: Emitter, value: Dim | float | None, dtype: str) -> Any:
    """A size or a number as a tensor of one element; 0 for None."""
    if isinstance(value, Expr):
        return as_type(e, e.shapes.scalar(value), dtype)
    return e.constant(dtype, (), (value or 0,))


def indices_of(e: Emitter, layer: Any, output: int, dtype: str) -> Any:
    """A layer's output of indices, in the wanted type from the release on that lets it be told."""
    if e.dtype(dtype) != e.dtype("INT32") and hasattr(layer, "indices_type"):
        layer.indices_type = e.dtype(dtype)
    return as_type(e, layer.get_output(output), dtype)


@emitter
def activation(
    e: Emitter, input: Any, type: str, alpha: float | None = None, beta: float | None = None
) -> Added:
    added = one(e, e.definition.add_activation(input, e.enum("ActivationType", type)))
    if alpha is not None:
        added.layers[0].alpha = alpha
    if beta is not None:
        added.layers[0].beta = beta
    return added


@emitter
def unary(e: Emitter, input: Any, op: str) -> Added:
    if op == "NEG" and _is_old_integer(e, input):
        # "operation NEG not allowed on type Int32", says 8.6
        zero = e.constant("INT32", (1,) * len(input.shape), (0,))
        return elementwise(e, zero, input, "SUB")
    return one(e, e.definition.add_unary(input, e.enum("UnaryOperation", op)))


@emitter
def elementwise(e: Emitter, input1: Any, input2: Any, op: str) -> Added:
    if op == "FLOOR_DIV" and _is_old_integer(e, input1):
        return _floored(e, input1, input2)
    operation = e.enum("ElementWiseOperation", op)
    return one(e, e.definition.add_elementwise(input1, input2, operation))


def _is_old_integer(e: Emitter, tensor: Any) -> bool:
    """Whether these are whole numbers of release 8, which can do less with them than later ones."""
    types = e.trt.DataType
    return bool(tensor.dtype == types.INT32) and not hasattr(types, "INT64")


def _floored(e: Emitter, a: Any, b: Any) -> Added:
    """The quotients of whole numbers, which 8.6 finds in FLOAT: it takes 2147483647 // 2**30 for 2
    (measured).

    What is left over, divided again, brings a large quotient to within one of the right one; on
    which side it is says what is left over then. Numbers that overflow on the way wrap around, and
    back.
    """
    layers: list[Any] = []

    def add(x: Any, y: Any, op: str) -> Any:
        layers.append(
            e.made(e.definition.add_elementwise(x, y, e.enum("ElementWiseOperation", op)))
        )
        return layers[-1].get_output(0)

    zero, one, minus = (e.constant("INT32", (1,) * len(a.shape), (n,)) for n in (0, 1, -1))
    about = add(a, b, "FLOOR_DIV")
    about = add(about, add(add(a, add(about, b, "PROD"), "SUB"), b, "FLOOR_DIV"), "SUM")
    sign = add(add(b, one, "MIN"), minus, "MAX")
    left = add(add(a, add(about, b, "PROD"), "SUB"), sign, "PROD")
    beyond = add(add(left, zero, "MAX"), add(b, sign, "PROD"), "SUB")
    too_many = add(add(left, zero, "MIN"), minus, "MAX")
    enough = add(add(beyond, minus, "MAX"), zero, "MIN")
    add(add(about, add(too_many, enough, "SUM"), "SUM"), one, "SUM")
    return Added(tuple(layers), (layers[-1].get_output(0),))


@emitter
def matrix_multiply(e: Emitter, input0: Any, input1: Any, op0: str, op1: str) -> Added:
    first, second = (e.enum("MatrixOperation", op) for op in (op0, op1))
    return one(e, e.definition.add_matrix_multiply(input0, first, input1, second))


def _windowed(e: Emitter, method: str, operands: tuple[Any, Any, Any], **attributes: Any) -> Added:
    input, kernel, bias = operands
    weights = isinstance(kernel, e.trt.Weights)
    added = one(
        e,
        getattr(e.definition, method)(
            input,
            attributes["num_output_maps"],
            attributes["kernel_shape"],
            kernel if weights else e.no_weights(input),
            e.no_weights(input) if bias is None else bias,
        ),
    )
    layer = added.layers[0]
    for name in ("stride_nd", "pre_padding", "post_padding", "dilation_nd", "num_groups"):
        setattr(layer, name, attributes[name])
    if not weights:
        layer.set_input(1, kernel)
    return added


@emitter
def convolution_nd(
    e: Emitter, input: Any, kernel: Any, bias: Any = None, **attributes: Any
) -> Added:
    return _windowed(e, "add_convolution_nd", (input, kernel, bias), **attributes)


@emitter
def deconvolution_nd(
    e: Emitter, input: Any, kernel: Any, bias: Any = None, **attributes: Any
) -> Added:
    return _windowed(e, "add_deconvolution_nd", (input, kernel, bias), **attributes)


@emitter
def pooling_nd(
    e: Emitter,
    input: Any,
    type: str,
    window_size: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    padding_mode: str,
    average_count_excludes_padding: bool = True,
) -> Added:
    added = one(e, e.definition.add_pooling_nd(input, e.enum("PoolingType", type), window_size))
    layer = added.layers[0]
    layer.stride_nd, layer.pre_padding, layer.post_padding = stride_nd, pre_padding, post_padding
    layer.padding_mode = e.enum("PaddingMode", padding_mode)
    if type == "AVERAGE":
        layer.average_count_excludes_padding = average_count_excludes_padding
    return added


@emitter
def scale_nd(
    e: Emitter,
    input: Any,
    mode: str,
    channel_axis: int,
    shift: Any = None,
    scale: Any = None,
    power: Any = None,
) -> Added:
    given = (e.no_weights(input) if w is None else w for w in (shift, scale, power))
    return one(e, e.definition.add_scale_nd(input, e.enum("ScaleMode", mode), *given, channel_axis))


def _normalized(
    e: Emitter, method: str, tensors: Sequence[Any], axes: Ints, epsilon: float, groups: int
) -> Added:
    added = one(e, getattr(e.definition, method)(*tensors, mask(axes)))
    added.layers[0].epsilon, added.layers[0].num_groups = epsilon, groups
    return added


@emitter
def normalization(
    e: Emitter,
    input: Any,
    scale: Any,
    bias: Any,
    axes: Ints,
    epsilon: float,
    num_groups: int = 1,
) -> Added:
    return _normalized(e, "add_normalization", (input, scale, bias), axes, epsilon, num_groups)


@emitter
def normalization_v2(
    e: Emitter,
    input: Any,
    scale: Any,
    bias: Any,
    axes: Ints,
    epsilon: float,
    num_groups: int = 1,
) -> Added:
    return _normalized(e, "add_normalization_v2", (input, scale, bias), axes, epsilon, num_groups)


@emitter
def softmax(e: Emitter, input: Any, axes: Ints) -> Added:
    added = one(e, e.definition.add_softmax(input))
    added.layers[0].axes = mask(axes)
    return added


@emitter
def reduce(e: Emitter, input: Any, op: str, axes: Ints, keep_dims: bool) -> Added:
    operation = e.enum("ReduceOperation", op)
    return one(e, e.definition.add_reduce(input, operation, mask(axes), keep_dims))


@emitter
def topk(e: Emitter, input: Any, op: str, k: int, axes: Ints, indices_type: str = "INT32") -> Added:
    layer = e.made(e.definition.add_topk(input, e.enum("TopKOperation", op), k, mask(axes)))
    return Added((layer,), (layer.get_output(0), indices_of(e, layer, 1, indices_type)))


@emitter
def einsum(e: Emitter, inputs: Sequence[Any], equation: str) -> Added:
    return one(e, e.definition.add_einsum(list(inputs), equation.replace(" ", "")))


@emitter
def grid_sample(
    e: Emitter,
    input: Any,
    grid: Any,
    interpolation_mode: str,
    align_corners: bool,
    sample_mode: str,
) -> Added:
    added = one(e, e.definition.add_grid_sample(input, grid))
    layer = added.layers[0]
    layer.interpolation_mode = e.enum("InterpolationMode", interpolation_mode)
    layer.align_corners = align_corners
    layer.sample_mode = e.enum("SampleMode", sample_mode)
    return added


@emitter
def parametric_relu(e: Emitter, input: Any, slopes: Any) -> Added:
    return one(e, e.definition.add_parametric_relu(input, slopes))


@emitter
def cumulative(e: Emitter, input: Any, op: str, axis: int, exclusive: bool, reverse: bool) -> Added:
    operation = e.enum("CumulativeOperation", op)
    at = e.constant("INT32", (), (axis,))
    return one(e, e.definition.add_cumulative(input, at, operation, exclusive, reverse))


@emitter
def attention(
    e: Emitter,
    query: Any,
    key: Any,
    value: Any,
    normalization_op: str,
    causal: bool,
    decomposable: bool,
    mask: Any = None,
) -> Added:
    operation = e.enum("AttentionNormalizationOp", normalization_op)
    if e.has("add_attention_v2"):
        kind = e.enum("CausalMaskKind", "UPPER_LEFT" if causal else "NONE")
        added = one(e, e.definition.add_attention_v2(query, key, value, operation, kind))
    else:
        added = one(e, e.definition.add_attention(query, key, value, operation, causal))
    layer = added.layers[0]
    layer.decomposable = decomposable
    if mask is not None:
        layer.mask = mask
    return added


@emitter
def rotary_embedding(e: Emitter, input: Any, cos: Any, sin: Any, interleaved: bool) -> Added:
    every = 0  # all of the last dim is turned
    return one(e, e.definition.add_rotary_embedding(input, cos, sin, interleaved, every))


def _scaled(e: Emitter, method: str, input: Any, scale: Any, dtype: str, axis: int | None) -> Added:
    add = getattr(e.definition, method)
    if hasattr(e.trt.IQuantizeLayer, "to_type"):
        added = one(e, add(input, scale, e.dtype(dtype)))
    else:  # release 8 scales in FLOAT, to and from INT8; _widened.py widens what is HALF
        added = one(e, add(input, scale))
    if axis is not None:
        added.layers[0].axis = axis
    return added


@emitter
def quantize(
    e: Emitter, input: Any, scale: Any, output_type: str, axis: int | None = None
) -> Added:
    return _scaled(e, "add_quantize", input, scale, output_type, axis)


@emitter
def dequantize(
    e: Emitter, input: Any, scale: Any, output_type: str, axis: int | None = None
) -> Added:
    return _scaled(e, "add_dequantize", input, scale, output_type, axis)
