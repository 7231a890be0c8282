# SPDX-License-Identifier: Apache-2.0
"""The table of layer kinds: operands, attributes, types and the release that introduced each.

A kind is called like TensorRT's ``add_<kind>``. Attribute types are

==============  =================================================================
``bool int float str``  themselves (``float`` takes an int too)
``ints``        a tuple of ints
``floats``      a tuple of floats
``dim``         a size, an int or an expression
``dims``        a tuple of sizes
``number``      a float, an int or a size given as a value
``numbers``     a tuple of numbers
``axes``        a tuple of non-negative axes; TensorRT is given the bit mask
``dtype``       a TensorRT type name
``EnumName``    a member name of that TensorRT enum
``results``     a tuple of (type name, dims), one for each output
``fields``      a tuple of (name, value); a number, a string or a tuple of numbers
``...?``        may be absent
==============  =================================================================

A kind with ``regions`` owns networks of its own: what a loop repeats, what a conditional chooses
between. A region is a function of its inputs, which stand for the layer's operands; of the network
around it, it reads constants by name, and sizes.

A kind that is ``sized_by_data`` answers as many elements as its operands' values tell. Such a size
is a dim of the layer's own output, which layers behind it may read.

``infer.py`` says what each kind answers, ``reference.py`` what it computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

FLOATS = frozenset({"FLOAT", "HALF", "BF16"})
INTS = frozenset({"INT32", "INT64"})
NUMBERS = FLOATS | INTS
ALL = NUMBERS | {"BOOL", "INT8", "FP8"}
"""What layers that only move elements take; UINT8 goes no further than a cast."""
ANY = ALL | {"UINT8"}
QUANTIZED = frozenset({"INT8", "FP8", "INT4"})
"""What ``quantize`` answers and ``dequantize`` reads; FP4 has no PyTorch type to hold it."""


ENUMS: Mapping[str, frozenset[str]] = {
    name: frozenset(members.split())
    for name, members in {
        "ActivationType": "RELU SIGMOID TANH LEAKY_RELU ELU SELU SOFTSIGN SOFTPLUS CLIP "
        "HARD_SIGMOID SCALED_TANH THRESHOLDED_RELU GELU_ERF GELU_TANH",
        "AttentionNormalizationOp": "NONE SOFTMAX",
        "BoundingBoxFormat": "CORNER_PAIRS CENTER_SIZES",
        "CumulativeOperation": "SUM",
        "ElementWiseOperation": "SUM PROD MAX MIN SUB DIV POW FLOOR_DIV AND OR XOR EQUAL GREATER "
        "LESS",
        "FillOperation": "LINSPACE RANDOM_UNIFORM RANDOM_NORMAL",
        "GatherMode": "DEFAULT ELEMENT ND",
        "InterpolationMode": "NEAREST LINEAR CUBIC",
        "MatrixOperation": "NONE TRANSPOSE VECTOR",
        "PaddingMode": "EXPLICIT_ROUND_DOWN EXPLICIT_ROUND_UP SAME_UPPER SAME_LOWER",
        "PoolingType": "MAX AVERAGE",
        "ReduceOperation": "SUM PROD MAX MIN AVG",
        "ResizeCoordinateTransformation": "ALIGN_CORNERS ASYMMETRIC HALF_PIXEL",
        "ResizeRoundMode": "HALF_UP HALF_DOWN FLOOR CEIL",
        "ResizeSelector": "FORMULA UPPER",
        "SampleMode": "STRICT_BOUNDS WRAP CLAMP FILL REFLECT",
        "ScaleMode": "UNIFORM CHANNEL ELEMENTWISE",
        "ScatterMode": "ELEMENT ND",
        "TopKOperation": "MAX MIN",
        "UnaryOperation": "EXP LOG SQRT RECIP ABS NEG SIN COS TAN SINH COSH ASIN ACOS ATAN ASINH "
        "ACOSH ATANH CEIL FLOOR ERF NOT SIGN ROUND ISINF ISNAN",
    }.items()
}
"""The members of TensorRT's enums that a network may name."""


@dataclass(frozen=True)
class Operand:
    """An operand: ``types`` it accepts; ``same`` names the operand whose type it must share."""

    name: str
    types: frozenset[str] = ALL
    same: str | None = None
    optional: bool = False
    variadic: bool = False
    constant: bool = False
    """Given to TensorRT as weights, so only a constant may stand here."""


@dataclass(frozen=True)
class Kind:
    """One row. ``since`` is the first release with it, ``rtx`` whether TensorRT-RTX runs it."""

    name: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    outputs: int = 1
    since: str = "8.6"
    rtx: bool = True
    regions: tuple[str, ...] = ()
    made_by: str = ""
    sized_by_data: bool = False

    @property
    def method(self) -> str:
        """The method of ``INetworkDefinition`` that makes it."""
        return f"add_{self.made_by or self.name}"

    @property
    def proved_on(self) -> tuple[str, ...]:
        """The TensorRTs that ran it and agreed with the evaluator, as ``scripts/prove_layers``
        recorded them (``"tensorrt 8.6.0"``)."""
        return tuple(proofs().get(self.name, {}))

    @property
    def proof(self) -> str:
        """Where what the evaluator computes for it comes from."""
        found = ", ".join(self.proved_on)
        return f"proved on {found}" if found else "from documentation"


@cache
def proofs() -> dict[str, dict[str, dict[str, Any]]]:
    """Layer kind -> TensorRT -> ``{"types": [...], "cases": n}``: what ran and agreed."""
    file = resources.files(__package__).joinpath("proved.json")  # may lie in a wheel
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text())
    return found


def _x(types: frozenset[str] = ALL) -> Operand:
    return Operand("input", types)


_CONV = {
    "num_output_maps": "int",
    "kernel_shape": "ints",
    "stride_nd": "ints",
    "pre_padding": "ints",
    "post_padding": "ints",
    "dilation_nd": "ints",
    "num_groups": "int",
}
_CONV_OPERANDS = (
    _x(FLOATS),
    Operand("kernel", FLOATS, same="input"),
    Operand("bias", FLOATS, same="input", optional=True, constant=True),
)

_TABLE = (
    Kind(
        "activation",
        (_x(NUMBERS),),
        {"type": "ActivationType", "alpha": "float?", "beta": "float?"},
    ),
    Kind("unary", (_x(),), {"op": "UnaryOperation"}),
    Kind(
        "elementwise",
        (Operand("input1"), Operand("input2", same="input1")),
        {"op": "ElementWiseOperation"},
    ),
    Kind(
        "matrix_multiply",
        (Operand("input0", FLOATS), Operand("input1", FLOATS, same="input0")),
        {"op0": "MatrixOperation", "op1": "MatrixOperation"},
    ),
    Kind("convolution_nd", _CONV_OPERANDS, _CONV),
    Kind("deconvolution_nd", _CONV_OPERANDS, _CONV),
    Kind(
        "pooling_nd",
        (_x(FLOATS | {"INT8"}),),
        {
            "type": "PoolingType",
            "window_size": "ints",
            "stride_nd": "ints",
            "pre_padding": "ints",
            "post_padding": "ints",
            "padding_mode": "PaddingMode",
            "average_count_excludes_padding": "bool?",
        },
    ),
    Kind(
        "scale_nd",
        (
            _x(FLOATS),
            Operand("shift", FLOATS, same="input", optional=True, constant=True),
            Operand("scale", FLOATS, same="input", optional=True, constant=True),
            Operand("power", FLOATS, same="input", optional=True, constant=True),
        ),
        {"mode": "ScaleMode", "channel_axis": "int"},
    ),
    Kind(
        "normalization",
        (
            _x(FLOATS),
            Operand("scale", FLOATS, same="input"),
            Operand("bias", FLOATS, same="input"),
        ),
        {"axes": "axes", "epsilon": "float", "num_groups": "int?"},
    ),
    Kind(
        "normalization_v2",
        (
            _x(FLOATS),
            Operand("scale", FLOATS, same="input"),
            Operand("bias", FLOATS, same="input"),
        ),
        {"axes": "axes", "epsilon": "float", "num_groups": "int?"},
        since="10.15",
    ),
    Kind("softmax", (_x(FLOATS),), {"axes": "axes"}),
    Kind(
        "reduce",
        (_x(NUMBERS),),
        {"op": "ReduceOperation", "axes": "axes", "keep_dims": "bool"},
    ),
    Kind(
        "topk",
        (_x(NUMBERS),),
        {"op": "TopKOperation", "k": "int", "axes": "axes", "indices_type": "dtype?"},
        outputs=2,
    ),
    Kind(
        "gather",
        (_x(), Operand("indices", INTS)),
        {"mode": "GatherMode", "axis": "int", "num_elementwise_dims": "int?"},
    ),
    Kind(
        "scatter",
        (Operand("data"), Operand("indices", INTS), Operand("updates", same="data")),
        {"mode": "ScatterMode", "axis": "int?"},
    ),
    Kind(
        "shuffle",
        (_x(),),
        {"first_transpose": "ints?", "reshape_dims": "dims?", "second_transpose": "ints?"},
    ),
    Kind(
        "slice",
        (_x(), Operand("fill", same="input", optional=True)),
        {"start": "dims", "shape": "dims", "stride": "dims", "mode": "SampleMode"},
    ),
    Kind("concatenation", (Operand("inputs", variadic=True),), {"axis": "int"}),
    Kind(
        "select",
        (
            Operand("condition", frozenset({"BOOL"})),
            Operand("then_input"),
            Operand("else_input", same="then_input"),
        ),
    ),
    Kind("cast", (_x(ANY),), {"to_type": "dtype"}),
    Kind("identity", (_x(ANY),)),
    Kind(
        "resize",
        (_x(FLOATS),),
        {
            "shape": "dims?",
            "scales": "floats?",
            "resize_mode": "InterpolationMode",
            "coordinate_transformation": "ResizeCoordinateTransformation",
            "selector_for_single_pixel": "ResizeSelector?",
            "nearest_rounding": "ResizeRoundMode?",
            "cubic_coeff": "float?",
            "exclude_outside": "bool?",
        },
    ),
    Kind(
        "fill",
        (
            Operand("alpha_tensor", NUMBERS, optional=True),
            Operand("beta_tensor", NUMBERS, optional=True),
        ),
        {
            "shape": "dims",
            "op": "FillOperation",
            "output_type": "dtype",
            "alpha": "number?",
            "beta": "numbers?",
        },
    ),
    Kind(
        "one_hot",
        (Operand("indices", frozenset({"INT32"})), Operand("values")),
        {"depth": "int", "axis": "int"},
    ),
    Kind("einsum", (Operand("inputs", FLOATS, variadic=True),), {"equation": "str"}),
    Kind(
        "grid_sample",
        (_x(FLOATS), Operand("grid", FLOATS, same="input")),
        {
            "interpolation_mode": "InterpolationMode",
            "align_corners": "bool",
            "sample_mode": "SampleMode",
        },
    ),
    Kind("parametric_relu", (_x(FLOATS), Operand("slopes", FLOATS, same="input"))),
    Kind(
        "cumulative",
        (_x(NUMBERS),),
        {"op": "CumulativeOperation", "axis": "int", "exclusive": "bool", "reverse": "bool"},
        since="10.8",
    ),
    Kind(
        "attention",
        (
            Operand("query", frozenset({"HALF", "BF16", "FLOAT"})),
            Operand("key", same="query"),
            Operand("value", same="query"),
            Operand("mask", optional=True),
        ),
        {"normalization_op": "AttentionNormalizationOp", "causal": "bool", "decomposable": "bool"},
        since="10.14",
    ),
    Kind(
        "rotary_embedding",
        (_x(FLOATS), Operand("cos", same="input"), Operand("sin", same="input")),
        {"interleaved": "bool"},
        since="10.15",
    ),
    # a scale of no dim is for all, of one dim for each channel, of the input's rank for each block
    Kind(
        "quantize",
        (_x(FLOATS), Operand("scale", FLOATS)),
        {"axis": "int?", "output_type": "dtype"},
    ),
    Kind(
        "dequantize",
        (_x(QUANTIZED), Operand("scale", FLOATS)),
        {"axis": "int?", "output_type": "dtype"},
    ),
    Kind(
        "scan",
        (
            Operand("states", optional=True, variadic=True),
            Operand("scanned", optional=True, variadic=True),
            Operand("captured", optional=True, variadic=True),
        ),
        {"length": "dim", "axis": "int", "reverse": "bool"},
        regions=("body",),
        made_by="loop",
    ),
    Kind(
        "branch",
        (
            Operand("condition", frozenset({"BOOL"})),
            Operand("captured", optional=True, variadic=True),
        ),
        regions=("then", "otherwise"),
        made_by="if_conditional",
    ),
    Kind(
        "non_zero",
        (_x(frozenset({"FLOAT", "HALF", "INT32", "BOOL"})),),
        {"indices_type": "dtype?"},
        rtx=False,
        sized_by_data=True,
    ),
    Kind(
        "nms",
        (Operand("boxes", frozenset({"FLOAT"})), Operand("scores", same="boxes")),
        {
            "max_output_boxes_per_class": "dim",
            "iou_threshold": "float",
            "score_threshold": "float",
            "bounding_box_format": "BoundingBoxFormat",
            "topk_box_limit": "int?",
            "indices_type": "dtype?",
        },
        outputs=2,
        rtx=False,
        sized_by_data=True,
    ),
    Kind(
        "plugin",
        (Operand("inputs", variadic=True),),
        {
            "plugin": "str",
            "version": "str",
            "namespace": "str?",
            "fields": "fields?",
            "results": "results",
            "reference": "str?",
        },
        rtx=False,
        made_by="plugin_v2",
    ),
)

KINDS: dict[str, Kind] = {row.name: row for row in _TABLE}
