# SPDX-License-Identifier: Apache-2.0
"""Elements at which libraries part: NaN, infinities, ties, negative and whole numbers.

Answers are written out, or computed by Python's own arithmetic. NaN is not given to what TensorRT
may take another number from instead; ``trtpack_runtime.reference`` says where that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from tests.runtime.layer_cases.case import FLOATS, Case, x

T = torch.Tensor
NAN, INF = math.nan, math.inf
WHOLE = ("INT32", "INT64")


def pointwise_specials() -> list[Case]:
    return [*_activations(), *_unaries(), *_elementwises(), *_casts(), *_others()]


def _activations() -> list[Case]:
    given = (INF, -INF, -0.0, 30.0, -30.0, NAN)
    table: dict[str, tuple[dict[str, float], tuple[float, ...]]] = {
        "RELU": ({}, (INF, 0, 0, 30, 0)),
        "CLIP": ({"alpha": -0.5, "beta": 1.0}, (1, -0.5, 0, 1, -0.5)),
        "SIGMOID": ({}, (1, 0, 0.5, 1, 0, NAN)),
        "TANH": ({}, (1, -1, 0, 1, -1, NAN)),
        "LEAKY_RELU": ({"alpha": 0.5}, (INF, -INF, 0, 30, -15, NAN)),
        "ELU": ({"alpha": 0.5}, (INF, -0.5, 0, 30, -0.5, NAN)),
        "SELU": ({"alpha": 0.5, "beta": 2.0}, (INF, -1, 0, 60, -1, NAN)),
        "SOFTPLUS": (
            {"alpha": 1.0, "beta": 1.0},
            (INF, 0, math.log(2), 30, math.log1p(math.exp(-30)), NAN),
        ),
        "HARD_SIGMOID": ({"alpha": 0.25, "beta": 0.5}, (1, 0, 0.5, 1, 0)),
    }
    return [
        Case(
            "activation",
            {"input": x(len(answer), values=given[: len(answer)])},
            {"type": type_, **more},
            always(answer),
            label="special",
        )
        for type_, (more, answer) in table.items()
    ]


def _unaries() -> list[Case]:
    table: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "EXP": ((NAN, INF, -INF, 0, -30), (NAN, INF, 0, 1, math.exp(-30))),
        "LOG": ((NAN, INF, 0, -1, 1), (NAN, INF, -INF, NAN, 0)),
        "SQRT": ((NAN, INF, 0, -1, 4), (NAN, INF, 0, NAN, 2)),
        "RECIP": ((NAN, INF, -INF, 0, -4), (NAN, 0, 0, INF, -0.25)),
        "ABS": ((NAN, INF, -INF, -0.0, -4), (NAN, INF, INF, 0, 4)),
        "NEG": ((NAN, INF, -INF, 0, -4), (NAN, -INF, INF, 0, 4)),
        "ERF": ((NAN, INF, -INF, 0, -4), (NAN, 1, -1, 0, math.erf(-4))),
        "SIGN": ((INF, -INF, 0, -0.0, -4), (1, -1, 0, 0, -1)),
        "CEIL": ((INF, -0.5, -1.5, 1.5, -2), (INF, 0, -1, 2, -2)),
        "FLOOR": ((-INF, -0.5, -1.5, 1.5, -2), (-INF, -1, -2, 1, -2)),
        "ROUND": ((-1.5, -2.5, 3.5, 2.375, -0.75), (-2, -2, 4, 2, -1)),
        "SIN": ((30, -30, 0, 3, -2), tuple(map(math.sin, (30, -30, 0, 3, -2)))),
        "COS": ((30, -30, 0, 3, -2), tuple(map(math.cos, (30, -30, 0, 3, -2)))),
        "ATAN": ((INF, -INF, 0, 3, -2), tuple(map(math.atan, (INF, -INF, 0, 3, -2)))),
        "ASIN": ((1, -1, 2, -2, 0), (math.pi / 2, -math.pi / 2, NAN, NAN, 0)),
        "ACOS": ((1, -1, 2, -2, 0), (0, math.pi, NAN, NAN, math.pi / 2)),
        "ACOSH": ((1, 0.5, 2, -2, 4), (0, NAN, math.acosh(2), NAN, math.acosh(4))),
        "ATANH": ((1, -1, 2, -0.5, 0), (INF, -INF, NAN, math.atanh(-0.5), 0)),
        "ASINH": ((INF, -INF, -3, 3, 0), (INF, -INF, math.asinh(-3), math.asinh(3), 0)),
        "SINH": ((INF, -INF, -3, 3, 0), (INF, -INF, math.sinh(-3), math.sinh(3), 0)),
        "COSH": ((INF, -INF, -3, 3, 0), (INF, INF, math.cosh(-3), math.cosh(3), 1)),
    }
    return [
        Case(
            "unary",
            {"input": x(5, values=given)},
            {"op": op},
            always(answer),
            label="special",
        )
        for op, (given, answer) in table.items()
    ]


def _elementwises() -> list[Case]:
    strange = ((NAN, 1), (1, NAN), (NAN, NAN), (INF, 1), (-INF, INF), (INF, INF), (0.0, -0.0))
    floats: tuple[tuple[str, str, tuple[tuple[float, float], ...], tuple[Any, ...]], ...] = (
        ("MAX", "special", strange[3:], (INF, INF, INF, 0)),
        ("MIN", "special", strange[3:], (1, -INF, INF, 0)),
        ("EQUAL", "special", strange, (False, False, False, False, False, True, True)),
        ("LESS", "special", strange, (False, False, False, False, True, False, False)),
        ("GREATER", "special", strange, (False, False, False, True, False, False, False)),
        ("SUM", "special", strange, (NAN, NAN, NAN, INF, NAN, INF, 0)),
        ("SUB", "special", strange, (NAN, NAN, NAN, INF, -INF, NAN, 0)),
        ("PROD", "special", ((INF, 0), (INF, -1), (NAN, 0)), (NAN, -INF, NAN)),
        ("DIV", "by zero", ((1, 0), (-1, 0), (0, 0), (3, INF)), (INF, -INF, NAN, 0)),
        ("POW", "whole exponents", _pairs((-2, 3, -2, 2, -2, -1, -3, 0)), (-8, 4, -0.5, 1)),
        ("POW", "fractions", _pairs((-2, 0.5, -8, 1.5, 4, 0.5, 4, -0.5)), (NAN, NAN, 2, 0.5)),
        ("POW", "zero", _pairs((0, 0, 0, 2, 0, 0.5, 0, -1)), (1, 0, 0, INF)),
        ("POW", "special", _pairs((INF, 2, INF, -1)), (INF, 0)),
        (
            "FLOOR_DIV",
            "exact multiples",
            _pairs((6, 3, -6, 3, 6, -3, -6, -3, 0, -3, 1, 0.25)),
            (2, -2, -2, 2, 0, 4),
        ),
        (
            "FLOOR_DIV",
            "fractions",
            _pairs((0.5, 2, -0.5, 2, 0.5, -2, -0.5, -2, 5.5, 1.25, -5.5, 1.25)),
            (0, -1, -1, 0, 4, -5),
        ),
    )
    whole: tuple[tuple[str, tuple[tuple[int, int], ...], tuple[Any, ...]], ...] = (
        ("PROD", ((-3, 4), (-3, -4), (3, -4), (0, -4)), (-12, 12, -12, 0)),
        ("DIV", ((-6, 3), (-1, 2), (1, -2), (-9, -4)), (-2, 0, 0, 2)),
        ("FLOOR_DIV", ((-6, 3), (-1, 2), (1, -2), (-9, -4)), (-2, -1, -1, 2)),
        ("POW", ((2, 10), (-3, 3), (5, 0), (0, 4)), (1024, -27, 1, 0)),
        ("MAX", ((-6, 3), (-1, -2), (1, -2), (4, 4)), (3, -1, 1, 4)),
        ("MIN", ((-6, 3), (-1, -2), (1, -2), (4, 4)), (-6, -2, -2, 4)),
        ("SUM", ((2**24, 1), (-(2**24), -3), (1, -2), (4, 4)), (2**24 + 1, -(2**24) - 3, -1, 8)),
        ("EQUAL", ((2**24, 2**24 + 1), (-1, -1), (1, -1), (0, 0)), (False, True, False, True)),
    )
    rows = [
        *((op, label, pairs, answer, FLOATS) for op, label, pairs, answer in floats),
        *((op, "whole", pairs, answer, WHOLE) for op, pairs, answer in whole),
    ]
    return [
        Case(
            "elementwise",
            {
                "input1": x(len(pairs), values=tuple(a for a, _ in pairs)),
                "input2": x(len(pairs), values=tuple(b for _, b in pairs)),
            },
            {"op": op},
            always(answer),
            dtypes=dtypes,
            label=label,
        )
        for op, label, pairs, answer, dtypes in rows
    ]


def _casts() -> list[Case]:
    extreme = (-3, 0, 2**31 - 1, -(2**31))
    rows: tuple[tuple[str, tuple[str, ...], tuple[Any, ...], str, tuple[Any, ...]], ...] = (
        (
            "truncated",
            FLOATS,
            (-1.75, 1.75, -0.5, 0.5, 2.5, -2.5, -1000.5),
            "INT32",
            (-1, 1, 0, 0, 2, -2, -1000),
        ),
        ("truncated", FLOATS, (-1.75, 1.75, -0.5, 2.5), "INT64", (-1, 1, 0, 2)),
        (
            "truth",
            FLOATS,
            (0.0, -0.0, NAN, INF, 0.001, -1.0),
            "BOOL",
            (False, False, True, True, True, True),
        ),
        ("truth", WHOLE, (0, 2, -1, 256, 65536), "BOOL", (False, True, True, True, True)),
        (
            "rounded",
            ("FLOAT",),
            (2049.0, 2051.0, 65519.0, 65520.0, -1e6, NAN, 1e-9),
            "HALF",
            (2048, 2052, 65504, INF, -INF, NAN, 0),
        ),
        ("widened", ("HALF",), (0.5, -65504.0, INF, NAN), "FLOAT", (0.5, -65504, INF, NAN)),
        ("numbers", ("BOOL",), (True, False, True), "INT32", (1, 0, 1)),
        ("numbers", ("BOOL",), (True, False, True), "HALF", (1, 0, 1)),
        ("rounded", WHOLE, (2**24 + 1, -3, 2**24 + 3), "FLOAT", (2**24, -3, 2**24 + 4)),
        ("narrowed", ("INT64",), extreme, "INT32", extreme),
        ("widened", ("INT32",), extreme, "INT64", extreme),
    )
    return [
        Case(
            "cast",
            {"input": x(len(given), values=given)},
            {"to_type": to},
            always(answer),
            dtypes=dtypes,
            label=f"{label} from {dtypes[0]}",
        )
        for label, dtypes, given, to, answer in rows
    ]


def _others() -> list[Case]:
    return [
        Case(
            "select",
            {
                "condition": x(4, dtype="BOOL", values=(True, False, True, False)),
                "then_input": x(4, values=(1, NAN, INF, NAN)),
                "else_input": x(4, values=(NAN, 2, NAN, -INF)),
            },
            {},
            always((1, 2, INF, -INF)),
            label="NaN not chosen",
        ),
        Case(
            "select",
            {
                "condition": x(2, 1, dtype="BOOL", values=(True, False)),
                "then_input": x(1, 2, dtype="BOOL", values=(True, False)),
                "else_input": x(2, 1, dtype="BOOL", values=(True, True)),
            },
            {},
            lambda **_: torch.tensor([[True, False], [True, True]]),
            dtypes=("BOOL",),
            label="truth",
        ),
        Case(
            "scale_nd",
            {
                "input": x(1, 1, 1, 4, values=(-2, -1, 0, 3)),
                "power": x(1, values=(2,), constant=True),
            },
            {"mode": "UNIFORM", "channel_axis": 1},
            lambda **_: torch.tensor([[[[4.0, 1, 0, 9]]]]),
            label="negative base",
        ),
        Case(
            "parametric_relu",
            {
                "input": x(4, values=(NAN, INF, -INF, -0.0)),
                "slopes": x(4, values=(0.5, -1, 0.5, 3)),
            },
            {},
            always((NAN, INF, -INF, 0)),
            label="special",
        ),
        *(
            Case(
                "cumulative",
                {"input": x(2, 3, values=(1, 2, 3, 4, 5, 6))},
                {"op": "SUM", "axis": axis, "exclusive": exclusive, "reverse": reverse},
                lambda input, a=answer: torch.tensor(a),
                dtypes=(*FLOATS, *WHOLE),
                label=f"axis {axis} {exclusive} {reverse}",
            )
            for axis, exclusive, reverse, answer in (
                (0, False, False, [[1, 2, 3], [5, 7, 9]]),
                (0, False, True, [[5, 7, 9], [4, 5, 6]]),
                (1, True, False, [[0, 1, 3], [0, 4, 9]]),
                (1, False, True, [[6, 5, 3], [15, 11, 6]]),
            )
        ),
    ]


def _pairs(flat: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def always(answer: tuple[Any, ...]) -> Callable[..., T]:
    """An answer that does not look at the operands, which are given in the case."""
    return lambda **_: torch.tensor(answer)
