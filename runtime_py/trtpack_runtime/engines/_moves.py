# SPDX-License-Identifier: Apache-2.0
"""Emitting functions of the kinds that move elements, change their type or make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dims import Dim, Expr

from ._layers import Added, Ints, as_type, emitter, number, one

if TYPE_CHECKING:
    from ._emit import Emitter

Shape = tuple[Dim, ...]


@emitter
def gather(
    e: Emitter, input: Any, indices: Any, mode: str, axis: int, num_elementwise_dims: int = 0
) -> Added:
    added = one(e, e.definition.add_gather_v2(input, indices, e.enum("GatherMode", mode)))
    layer = added.layers[0]
    if mode != "ND":
        layer.axis = axis
    layer.num_elementwise_dims = num_elementwise_dims
    return added


@emitter
def scatter(
    e: Emitter, data: Any, indices: Any, updates: Any, mode: str, axis: int | None = None
) -> Added:
    added = one(e, e.definition.add_scatter(data, indices, updates, e.enum("ScatterMode", mode)))
    if axis is not None and mode == "ELEMENT":
        added.layers[0].axis = axis
    return added


@emitter
def shuffle(
    e: Emitter,
    input: Any,
    first_transpose: Ints | None = None,
    reshape_dims: Shape | None = None,
    second_transpose: Ints | None = None,
) -> Added:
    added = one(e, e.definition.add_shuffle(input))
    layer = added.layers[0]
    if first_transpose is not None:
        layer.first_transpose = first_transpose
    if reshape_dims is not None:
        layer.zero_is_placeholder = False
        open_dims = sum(isinstance(size, Expr) for size in reshape_dims)
        if open_dims > 1 or (open_dims and 0 in reshape_dims):
            layer.set_input(1, e.shapes.vector(reshape_dims))
        else:  # TensorRT infers a single open size
            layer.reshape_dims = tuple(d if isinstance(d, int) else -1 for d in reshape_dims)
    if second_transpose is not None:
        layer.second_transpose = second_transpose
    return added


@emitter
def slice(
    e: Emitter, input: Any, start: Shape, shape: Shape, stride: Shape, mode: str, fill: Any = None
) -> Added:
    types = e.trt.DataType
    if input.dtype == types.BOOL and mode != "STRICT_BOUNDS" and not hasattr(types, "INT64"):
        # "No support for kREFLECT, kFILL, kCLAMP slice" of truth values, says 8.6
        filling = None if fill is None else as_type(e, fill, "INT32")
        added = slice(e, as_type(e, input, "INT32"), start, shape, stride, mode, filling)
        back = e.made(e.definition.add_cast(added.tensors[0], types.BOOL))
        return Added((*added.layers, back), (back.get_output(0),))
    given = (start, shape, stride)
    numbers = [tuple(d if isinstance(d, int) else 1 for d in sizes) for sizes in given]
    added = one(e, e.definition.add_slice(input, *numbers))
    layer = added.layers[0]
    layer.mode = e.enum("SampleMode", mode)
    for index, sizes in enumerate(given, start=1):
        if any(isinstance(size, Expr) for size in sizes):
            layer.set_input(index, e.shapes.vector(sizes))
    if fill is not None:
        layer.set_input(4, fill)
    return added


@emitter
def concatenation(e: Emitter, inputs: Sequence[Any], axis: int) -> Added:
    added = one(e, e.definition.add_concatenation(list(inputs)))
    added.layers[0].axis = axis
    return added


@emitter
def select(e: Emitter, condition: Any, then_input: Any, else_input: Any) -> Added:
    return one(e, e.definition.add_select(condition, then_input, else_input))


@emitter
def cast(e: Emitter, input: Any, to_type: str) -> Added:
    if to_type == "INT64" and input.dtype == e.dtype(to_type):  # INT32 where there is no INT64
        return identity(e, input)
    return one(e, e.definition.add_cast(input, e.dtype(to_type)))


@emitter
def identity(e: Emitter, input: Any) -> Added:
    return one(e, e.definition.add_identity(input))


@emitter
def resize(
    e: Emitter,
    input: Any,
    resize_mode: str,
    coordinate_transformation: str,
    shape: Shape | None = None,
    scales: tuple[float, ...] | None = None,
    selector_for_single_pixel: str = "FORMULA",
    nearest_rounding: str = "FLOOR",
    cubic_coeff: float = -0.75,
    exclude_outside: bool = False,
) -> Added:
    added = one(e, e.definition.add_resize(input))
    layer = added.layers[0]
    layer.resize_mode = e.enum("InterpolationMode", resize_mode)
    layer.coordinate_transformation = e.enum(
        "ResizeCoordinateTransformation", coordinate_transformation
    )
    layer.selector_for_single_pixel = e.enum("ResizeSelector", selector_for_single_pixel)
    layer.nearest_rounding = e.enum("ResizeRoundMode", nearest_rounding)
    if resize_mode == "CUBIC":
        layer.cubic_coeff = cubic_coeff
        layer.exclude_outside = exclude_outside
    if scales is not None:
        layer.scales = list(scales)
    elif shape is not None and any(isinstance(size, Expr) for size in shape):
        layer.set_input(1, e.shapes.vector(shape))
    else:
        layer.shape = shape
    return added


@emitter
def fill(
    e: Emitter,
    shape: Shape,
    op: str,
    output_type: str,
    alpha: Dim | float | None = None,
    beta: tuple[Dim | float, ...] | None = None,
    alpha_tensor: Any = None,
    beta_tensor: Any = None,
) -> Added:
    numbers = tuple(d if isinstance(d, int) else 1 for d in shape)
    operation, dtype = e.enum("FillOperation", op), e.dtype(output_type)
    typed = hasattr(e.trt.IFillLayer, "to_type")
    added = one(e, e.definition.add_fill(numbers, operation, *((dtype,) if typed else ())))
    layer = added.layers[0]
    if not typed:
        layer.set_output_type(0, dtype)
    if any(isinstance(size, Expr) for size in shape):
        layer.set_input(0, e.shapes.vector(shape))
    layer.set_input(1, alpha_tensor or number(e, alpha, output_type))
    layer.set_input(2, beta_tensor or _numbers(e, beta or (), output_type))
    return added


@emitter
def one_hot(e: Emitter, indices: Any, values: Any, depth: int, axis: int) -> Added:
    return one(
        e, e.definition.add_one_hot(indices, values, e.constant("INT32", (), (depth,)), axis)
    )


def _numbers(e: Emitter, values: Sequence[Dim | float], dtype: str) -> Any:
    plain = tuple(value for value in values if not isinstance(value, Expr))
    if len(plain) == len(values):
        return e.constant(dtype, (len(plain),), plain)
    sizes = tuple(value for value in values if not isinstance(value, float))
    if len(sizes) != len(values):
        raise ValueError("a step is a size where another is a fraction")
    return as_type(e, e.shapes.vector(sizes), dtype)
