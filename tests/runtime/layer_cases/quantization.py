# SPDX-License-Identifier: Apache-2.0
"""Quantizing and dequantizing: ties, saturation, channels, blocks."""

from __future__ import annotations

import torch

from tests.runtime.layer_cases.case import Case, Operand, ints, x

INT8 = (0.5, 1.5, -2.5, 300.0, -300.0, 0.26, 12.75, -1.0)
FP8 = (0.5, 17.0, 19.0, 500.0, -500.0, 0.0009, 0.0029, -1.0)
"""17 and 19 lie midway between two numbers of E4M3; its least are multiples of 2^-9."""
INT4 = (1, -2, 3, 4, -5, 6, 7, -8, 0, -1, 2, -3, 4, 5, -6, -7)


def quantizations() -> list[Case]:
    stored = ints((2, 4), 1, -2, 3, 4, -5, 6, 127, -128, dtype="INT8")
    return [
        Case(
            "quantize",
            {"input": x(8, values=INT8), "scale": x(values=(1.0,), constant=True)},
            {"output_type": "INT8"},
            lambda input, scale: torch.tensor([0, 2, -2, 127, -128, 0, 13, -1]),
            dynamic={"input": (0,)},
        ),
        Case(
            "quantize",
            {
                "input": x(2, 3, values=(1.0, 2.0, 3.0, 1.0, 2.0, 3.0), constant=True),
                "scale": x(2, values=(0.5, 0.25), constant=True),
            },
            {"output_type": "INT8", "axis": 0},
            lambda input, scale: torch.tensor([[2, 4, 6], [4, 8, 12]]),
            label="axis",
        ),
        Case(
            "quantize",
            {"input": x(8, values=FP8), "scale": x(values=(1.0,), constant=True)},
            {"output_type": "FP8"},
            lambda input, scale: torch.tensor([0.5, 16, 20, 448, -448, 0, 2**-9, -1]),
        ),
        Case(
            "dequantize",
            {"input": stored, "scale": x(values=(0.5,), constant=True)},
            {"output_type": "FLOAT"},
            lambda input, scale: input * 0.5,
            dtypes=("FLOAT",),
        ),
        Case(
            "dequantize",
            {"input": stored, "scale": x(2, values=(0.5, 2.0), constant=True)},
            {"output_type": "HALF", "axis": 0},
            lambda input, scale: input * scale[:, None],
            dtypes=("HALF",),
            label="axis",
        ),
        Case(
            "dequantize",
            {
                "input": Operand((3, 2), "FP8", (0.5, -448.0, 2.0, 0.25, -1.0, 2**-9)),
                "scale": x(values=(0.25,), constant=True),
            },
            {"output_type": "FLOAT"},
            lambda input, scale: torch.tensor([[0.125, -112], [0.5, 0.0625], [-0.25, 2**-11]]),
            dtypes=("FLOAT",),
            label="fp8",
        ),
        *_blocks(),
    ]


def _blocks() -> list[Case]:
    """INT4 weights of 4 columns, or rows, to a scale."""
    weights = Operand((2, 8), "INT4", INT4, constant=True)
    values = torch.tensor(INT4, dtype=torch.float32)
    return [
        Case(
            "dequantize",
            {"input": weights, "scale": x(2, 2, values=(0.5, 2, 1, 0.25), constant=True)},
            {"output_type": dtype, "axis": 1},
            lambda input, scale: (values.reshape(2, 2, 4) * scale[:, :, None]).reshape(2, 8),
            dtypes=(dtype,),
            label=f"int4 columns {dtype}",
        )
        for dtype in ("FLOAT", "HALF")
    ] + [
        Case(
            "dequantize",
            {
                "input": Operand((8, 2), "INT4", INT4, constant=True),
                "scale": x(2, 2, values=(0.5, 2, 1, 0.25), constant=True),
            },
            {"output_type": "FLOAT", "axis": 0},
            lambda input, scale: (values.reshape(2, 4, 2) * scale[:, None]).reshape(8, 2),
            dtypes=("FLOAT",),
            label="int4 rows",
        )
    ]
