# SPDX-License-Identifier: Apache-2.0
"""Layers that compute each element on its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tests.runtime.layer_cases.case import FLOATS, NUMBERS, Case, x

T = torch.Tensor


def activations() -> list[Case]:
    table: dict[str, tuple[dict[str, float], Callable[[T], T]]] = {
        "RELU": ({}, F.relu),
        "SIGMOID": ({}, lambda v: 1 / (1 + torch.exp(-v))),
        "TANH": ({}, lambda v: 2 / (1 + torch.exp(-2 * v)) - 1),
        "LEAKY_RELU": ({"alpha": 0.1}, lambda v: F.leaky_relu(v, 0.1)),
        "ELU": ({"alpha": 0.7}, lambda v: F.elu(v, 0.7)),
        "SELU": ({"alpha": 1.6732632, "beta": 1.0507010}, F.selu),
        "SOFTSIGN": ({}, F.softsign),
        "SOFTPLUS": ({"alpha": 0.5, "beta": 2.0}, lambda v: F.softplus(v, beta=2.0)),
        "CLIP": ({"alpha": -0.5, "beta": 1.0}, lambda v: v.clamp(-0.5, 1.0)),
        "HARD_SIGMOID": ({"alpha": 1 / 6, "beta": 0.5}, F.hardsigmoid),
        "SCALED_TANH": ({"alpha": 1.5, "beta": 0.5}, lambda v: 1.5 * torch.tanh(0.5 * v)),
        "THRESHOLDED_RELU": ({"alpha": 0.4}, lambda v: F.threshold(v, 0.4, 0.0)),
        "GELU_ERF": ({}, lambda v: v * 0.5 * (1 + torch.erf(v / math.sqrt(2)))),
        "GELU_TANH": ({}, lambda v: F.gelu(v, approximate="tanh")),
    }
    return [
        Case(
            "activation",
            {"input": x(3, 5)},
            {"type": type_, **more},
            lambda input, f=function: f(input),
            dtypes=NUMBERS if type_ == "RELU" else FLOATS,
            dynamic={"input": (0,)},
        )
        for type_, (more, function) in table.items()
    ]


def unaries() -> list[Case]:
    special = (0.5, 1.5, 2.5, -0.5, math.nan, math.inf, -math.inf, 0.0)
    cases = []
    for op in [
        "EXP",
        "LOG",
        "SQRT",
        "RECIP",
        "ABS",
        "NEG",
        "SIN",
        "COS",
        "TAN",
        "SINH",
        "COSH",
        "ASIN",
        "ACOS",
        "ATAN",
        "ASINH",
        "ACOSH",
        "ATANH",
        "CEIL",
        "FLOOR",
        "ERF",
        "SIGN",
        "ROUND",
    ]:
        function = getattr(torch, {"RECIP": "reciprocal"}.get(op, op.lower()))
        low, high = {"ACOSH": (1.1, 4.0)}.get(op, (0.05, 0.95))
        if op in ("ABS", "NEG", "SIGN", "CEIL", "FLOOR", "ROUND", "ERF"):
            low, high = -3.0, 3.0
        cases.append(
            Case(
                "unary",
                {"input": x(4, 3, low=low, high=high)},
                {"op": op},
                lambda input, f=function: f(input),
                dtypes=NUMBERS if op in ("ABS", "NEG", "SIGN") else FLOATS,
                dynamic={"input": (0, 1)},
            )
        )
    for op, function in (("ISNAN", torch.isnan), ("ISINF", torch.isinf)):
        cases.append(
            Case(
                "unary",
                {"input": x(8, values=special)},
                {"op": op},
                lambda input, f=function: f(input),
            )
        )
    rounded = {"input": x(4, values=(0.5, 1.5, 2.5, -0.5))}
    cases.append(
        Case(
            "unary",
            rounded,
            {"op": "ROUND"},
            lambda input: torch.tensor([0.0, 2.0, 2.0, -0.0]),
            label="half to even",
        )
    )
    cases.append(
        Case(
            "unary",
            {"input": x(4, 3)},
            {"op": "NOT"},
            lambda input: ~input,
            dtypes=("BOOL",),
            dynamic={"input": (0,)},
        )
    )
    return cases


def elementwises() -> list[Case]:
    numeric: dict[str, Callable[[T, T], T]] = {
        "SUM": lambda a, b: a + b,
        "PROD": lambda a, b: a * b,
        "MAX": lambda a, b: torch.where(a > b, a, b),
        "MIN": lambda a, b: torch.where(a < b, a, b),
        "SUB": lambda a, b: a - b,
        "EQUAL": lambda a, b: a == b,
        "GREATER": lambda a, b: a > b,
        "LESS": lambda a, b: a < b,
    }
    cases = [
        Case(
            "elementwise",
            {"input1": x(3, 1, 5, low=-4, high=4), "input2": x(3, 4, 1, low=-4, high=4)},
            {"op": op},
            lambda input1, input2, f=function: f(input1, input2),
            dtypes=NUMBERS,
            dynamic={"input1": (0,), "input2": (0,)},
        )
        for op, function in numeric.items()
    ]
    for op, function in (
        ("AND", lambda a, b: a & b),
        ("OR", lambda a, b: a | b),
        ("XOR", lambda a, b: a ^ b),
        ("EQUAL", lambda a, b: a == b),
    ):
        cases.append(
            Case(
                "elementwise",
                {"input1": x(3, 4), "input2": x(1, 4)},
                {"op": op},
                lambda input1, input2, f=function: f(input1, input2),
                dtypes=("BOOL",),
                dynamic={"input1": (0,)},
            )
        )
    numerators, divisors = (7, -7, 7, -7, 6), (2, 2, -2, -2, 3)
    division = {"input1": x(5, values=numerators), "input2": x(5, values=divisors)}
    exact = torch.tensor([3.5, -3.5, -3.5, 3.5, 2.0])
    whole = ("INT32", "INT64")
    cases += [
        Case("elementwise", division, {"op": "DIV"}, lambda **_: exact),
        Case(
            "elementwise",
            division,
            {"op": "DIV"},
            lambda **_: torch.tensor([3, -3, -3, 3, 2]),
            dtypes=whole,
            label="whole numbers towards zero",
        ),
        Case(
            "elementwise",
            division,
            {"op": "FLOOR_DIV"},
            lambda **_: torch.tensor([3, -4, -4, 3, 2]),
            dtypes=NUMBERS,
        ),
        Case(
            "elementwise",
            {"input1": x(3, 2, low=0.5, high=3), "input2": x(3, 1)},
            {"op": "POW"},
            lambda input1, input2: torch.exp(input2 * torch.log(input1)),
        ),
        Case(
            "elementwise",
            {"input1": x(2, values=(3, -2)), "input2": x(2, values=(2, 3))},
            {"op": "POW"},
            lambda **_: torch.tensor([9, -8]),
            dtypes=whole,
        ),
    ]
    return cases


def others() -> list[Case]:
    return [
        Case(
            "parametric_relu",
            {"input": x(2, 3, 4), "slopes": x(1, 3, 1)},
            {},
            lambda input, slopes: torch.stack(
                [F.prelu(input[:, i], slopes[0, i]) for i in range(3)], 1
            ),
            dynamic={"input": (0,)},
        ),
        Case(
            "select",
            {
                "condition": x(3, 1, dtype="BOOL"),
                "then_input": x(3, 4),
                "else_input": x(1, 4),
            },
            {},
            lambda condition, then_input, else_input: (
                condition.to(then_input.dtype) * then_input
                + (~condition).to(then_input.dtype) * else_input
            ),
            dtypes=NUMBERS,
            dynamic={"condition": (0,), "then_input": (0,)},
        ),
        *(
            Case(
                "cast",
                {"input": x(4, values=values)},
                {"to_type": to},
                lambda input, a=answer: torch.tensor(a),
                dtypes=dtypes,
                dynamic={"input": (0,)},
                label=f"from {dtypes[0]}",
            )
            for dtypes, values, to, answer in (
                (FLOATS, (-1.7, 1.7, 0.2, 3.0), "INT32", [-1, 1, 0, 3]),
                (FLOATS, (-1.7, 0.0, 0.2, 3.0), "BOOL", [True, False, True, True]),
                (("INT64",), (-1, 0, 7, 3), "HALF", [-1.0, 0.0, 7.0, 3.0]),
                (("BOOL",), (True, False, True, True), "FLOAT", [1.0, 0.0, 1.0, 1.0]),
                (("UINT8",), (255, 0, 7, 3), "FLOAT", [255.0, 0.0, 7.0, 3.0]),
                (("FLOAT",), (255.0, 0.0, 7.0, 3.9), "UINT8", [255, 0, 7, 3]),
            )
        ),
        Case("identity", {"input": x(2, 3)}, {}, lambda input: input, dtypes=(*NUMBERS, "BOOL")),
        Case(
            "cumulative",
            {"input": x(2, 5)},
            {"op": "SUM", "axis": 1, "exclusive": False, "reverse": False},
            lambda input: (
                torch.tril(torch.ones(5, 5, dtype=input.dtype)).mul(input[:, None]).sum(2)
            ),
            dtypes=NUMBERS,
            dynamic={"input": (0,)},
        ),
        Case(
            "cumulative",
            {"input": x(2, 4, values=(1, 2, 3, 4, 5, 6, 7, 8))},
            {"op": "SUM", "axis": 1, "exclusive": True, "reverse": True},
            lambda input: torch.tensor([[9, 7, 4, 0], [21, 15, 8, 0]]),
            dtypes=NUMBERS,
            label="exclusive reverse",
        ),
    ]
