# SPDX-License-Identifier: Apache-2.0
"""Reductions, picking and moving at their edges: NaN, ties, indices and slices beyond the ends."""

from __future__ import annotations

import torch

from tests.runtime.layer_cases.case import FLOATS, Case, ints, x
from tests.runtime.layer_cases.special import INF, NAN, WHOLE, always


def reductions() -> list[Case]:
    strange = (-INF, -5, INF, INF, -3, -7, NAN, 1)
    table: tuple[tuple[str, tuple[float, ...]], ...] = (
        ("MAX", (-5, INF, -3)),
        ("MIN", (-INF, INF, -7)),
        ("SUM", (-INF, INF, -10, NAN)),
        ("PROD", (INF, INF, 21, NAN)),
        ("AVG", (-INF, INF, -5, NAN)),
    )
    whole = x(2, 3, values=(-1, 2, -3, 4, -5, 6))
    return [
        *(
            Case(
                "reduce",
                {"input": x(len(answer), 2, values=strange[: 2 * len(answer)])},
                {"op": op, "axes": (1,), "keep_dims": False},
                always(answer),
                label="special",
            )
            for op, answer in table
        ),
        *(
            Case(
                "reduce",
                {"input": whole},
                {"op": op, "axes": (0, 1), "keep_dims": True},
                lambda input, a=answer: torch.tensor([[a]]),
                dtypes=WHOLE,
                label="whole",
            )
            for op, answer in (("SUM", 3), ("PROD", -720), ("MAX", 6), ("MIN", -5))
        ),
        Case(
            "softmax",
            {"input": x(3, 3, values=(1000, 1000, 999, 0, -INF, -INF, 1, -INF, 1))},
            {"axes": (1,)},
            lambda **_: torch.tensor([[0.4223188, 0.4223188, 0.1553624], [1, 0, 0], [0.5, 0, 0.5]]),
            label="large and masked",
        ),
        Case(
            "softmax",
            {"input": x(1, 2, values=(-INF, -INF))},
            {"axes": (1,)},
            lambda **_: torch.tensor([[NAN, NAN]]),
            label="all masked",
        ),
        Case(
            "topk",
            {"input": x(2, 5, values=(-1, -3, -2, -9, -4, 5, INF, -60000, 0, 7))},
            {"op": "MAX", "k": 5, "axes": (1,)},
            lambda **_: (
                torch.tensor([[-1, -2, -3, -4, -9], [INF, 7, 5, 0, -60000]]),
                torch.tensor([[0, 2, 1, 4, 3], [1, 4, 0, 3, 2]]),
            ),
            label="negative",
        ),
        Case(
            "topk",
            {"input": x(4, 2, values=(1, 8, 2, 7, 3, 6, 4, 5))},
            {"op": "MIN", "k": 2, "axes": (0,)},
            lambda **_: (torch.tensor([[1, 5], [2, 6]]), torch.tensor([[0, 3], [1, 2]])),
            label="first dim",
        ),
        *(
            Case(
                "topk",
                {"input": x(1, 6, values=(1, 3, 3, 2, 3, 1))},
                {"op": op, "k": 3, "axes": (1,)},
                lambda input, v=values, i=indices: (torch.tensor([v]), torch.tensor([i])),
                label="ties",
            )
            for op, values, indices in (
                ("MAX", [3, 3, 3], [1, 2, 4]),
                ("MIN", [1, 1, 2], [0, 5, 3]),
            )
        ),
    ]


def indexings() -> list[Case]:
    rows = x(4, 2, values=(0, 1, 2, 3, 4, 5, 6, 7))
    return [
        Case(
            "gather",
            {"input": rows, "indices": ints((3,), -1, 0, -4)},
            {"mode": "DEFAULT", "axis": 0},
            lambda **_: torch.tensor([[6, 7], [0, 1], [0, 1]]),
            label="negative",
        ),
        Case(
            "gather",
            {"input": rows, "indices": ints((2,), 1, 4)},
            {"mode": "DEFAULT", "axis": 0},
            lambda **_: torch.tensor([[2, 3], [0, 0]]),
            label="out of bounds",
        ),
        Case(
            "gather",
            {"input": rows, "indices": ints((2, 2), -1, 0, 1, -4)},
            {"mode": "ELEMENT", "axis": 0},
            lambda **_: torch.tensor([[6, 1], [2, 1]]),
            label="negative",
        ),
        Case(
            "gather",
            {"input": rows, "indices": ints((2, 2), -1, 0, 1, -1)},
            {"mode": "ND", "axis": 0},
            lambda **_: torch.tensor([6, 3]),
            label="negative",
        ),
        Case(
            "scatter",
            {"data": rows, "indices": ints((1, 2), -1, 1), "updates": x(1, 2, values=(20, 30))},
            {"mode": "ELEMENT", "axis": 0},
            lambda **_: torch.tensor([[0, 1], [2, 30], [4, 5], [20, 7]]),
            label="negative",
        ),
        Case(
            "scatter",
            {"data": rows, "indices": ints((1, 1), -1), "updates": x(1, 2, values=(20, 30))},
            {"mode": "ND"},
            lambda **_: torch.tensor([[0, 1], [2, 3], [4, 5], [20, 30]]),
            label="negative",
        ),
        *(
            Case(
                "slice",
                {"input": x(5, values=(0, 1, 2, 3, 4))},
                {"start": (start,), "shape": (len(answer),), "stride": (stride,), "mode": mode},
                always(answer),
                dtypes=(*FLOATS, "INT32"),
                label=f"{start} {stride}",
            )
            for mode, start, stride, answer in (
                ("FILL", -1, 2, (0, 1, 3, 0)),
                ("FILL", 5, -2, (0, 3, 1, 0)),
                ("CLAMP", -3, 2, (0, 0, 1, 3, 4)),
                ("CLAMP", 6, -1, (4, 4, 4, 3)),
                ("WRAP", -3, 2, (2, 4, 1, 3, 0)),
                ("WRAP", 9, -1, (4, 3, 2, 1, 0, 4)),
                ("WRAP", -11, 1, (4, 0, 1)),
                ("REFLECT", -3, 1, (3, 2, 1, 0, 1, 2, 3, 4, 3, 2)),
                ("REFLECT", 6, -1, (2, 3, 4, 3, 2)),
                ("REFLECT", -9, 1, (1, 0, 1)),
            )
        ),
        Case(
            "slice",
            {"input": x(2, 2, values=(1, 2, 3, 4)), "fill": x(values=(-INF,), constant=True)},
            {"start": (0, -1), "shape": (2, 3), "stride": (1, 1), "mode": "FILL"},
            lambda **_: torch.tensor([[-INF, 1, 2], [-INF, 3, 4]]),
            label="infinity",
        ),
        Case(
            "shuffle",
            {"input": x(0, 4)},
            {"reshape_dims": (2, 0, 2)},
            lambda input: torch.zeros(2, 0, 2),
            label="nothing",
        ),
        *(
            Case(
                "one_hot",
                {
                    "indices": ints((len(given),), *given),
                    "values": x(2, values=(0, 1), constant=True),
                },
                {"depth": 3, "axis": axis},
                lambda indices, values, a=answer: torch.tensor(a),
                label=f"{label} axis {axis}",
            )
            for label, given, axis, answer in (
                ("inside", (2, 0), 0, [[0, 1], [0, 0], [1, 0]]),
                ("beyond", (3, 1), 1, [[0, 0, 0], [0, 1, 0]]),
            )
        ),
        Case(
            "fill",
            {},
            {"shape": (4,), "op": "LINSPACE", "output_type": "INT32", "alpha": 5, "beta": (-2,)},
            lambda: torch.tensor([5, 3, 1, -1]),
            dtypes=("INT32",),
            label="downwards",
        ),
        Case(
            "fill",
            {},
            {
                "shape": (3,),
                "op": "LINSPACE",
                "output_type": "FLOAT",
                "alpha": 0.5,
                "beta": (0.25,),
            },
            lambda: torch.tensor([0.5, 0.75, 1.0]),
            dtypes=("FLOAT",),
            label="fractions",
        ),
    ]
