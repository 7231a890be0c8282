# SPDX-License-Identifier: Apache-2.0
"""Layers that move, pick or make elements."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.runtime.layer_cases.case import NUMBERS, Case, ints, x
from trtpack_runtime.dims import dim

T = torch.Tensor


def indexings() -> list[Case]:
    n = dim("input", 0)
    moved = (*NUMBERS, "BOOL")

    def slice_(start: Any, shape: Any, stride: Any = (1, 1), mode: str = "STRICT_BOUNDS") -> Any:
        return {"start": start, "shape": shape, "stride": stride, "mode": mode}

    return [
        Case(
            "gather",
            {"input": x(4, 5, 3), "indices": ints((2, 2), 0, 4, 2, 2)},
            {"mode": "DEFAULT", "axis": 1},
            lambda input, indices: input[:, indices.long()],
            dtypes=moved,
            dynamic={"input": (0,), "indices": (0,)},
        ),
        Case(
            "gather",
            {"input": x(4, 3), "indices": ints((), 2, dtype="INT64")},
            {"mode": "DEFAULT", "axis": 0},
            lambda input, indices: input[2],
            label="one index",
        ),
        Case(
            "gather",
            {"input": x(2, 5, 3), "indices": ints((2, 2), 0, 4, 2, 1)},
            {"mode": "DEFAULT", "axis": 1, "num_elementwise_dims": 1},
            lambda input, indices: torch.stack([input[0, [0, 4]], input[1, [2, 1]]]),
            label="batched",
        ),
        Case(
            "gather",
            {"input": x(3, 4), "indices": ints((3, 2), 0, 3, 1, 1, 2, 0)},
            {"mode": "ELEMENT", "axis": 1},
            lambda input, indices: torch.gather(input, 1, indices.long()),
            dtypes=moved,
            dynamic={"input": (0,), "indices": (0,)},
        ),
        Case(
            "gather",
            {"input": x(3, 4, 2), "indices": ints((3, 2), 0, 3, 1, 1, 2, 0)},
            {"mode": "ND", "axis": 0},
            lambda input, indices: torch.stack([input[0, 3], input[1, 1], input[2, 0]]),
            dynamic={"indices": (0,)},
        ),
        Case(
            "gather",
            {"input": x(2, 4, 3), "indices": ints((2, 2, 1), 0, 3, 1, 1)},
            {"mode": "ND", "axis": 0, "num_elementwise_dims": 1},
            lambda input, indices: torch.stack([input[0, [0, 3]], input[1, [1, 1]]]),
            label="batched",
        ),
        Case(
            "scatter",
            {"data": x(3, 4), "indices": ints((3, 2), 0, 3, 1, 2, 2, 0), "updates": x(3, 2)},
            {"mode": "ELEMENT", "axis": 1},
            lambda data, indices, updates: data.scatter(1, indices.long(), updates),
            dtypes=moved,
            dynamic={"data": (0,), "indices": (0,), "updates": (0,)},
        ),
        Case(
            "scatter",
            {"data": x(4, 3), "indices": ints((2, 1), 3, 1), "updates": x(2, 3)},
            {"mode": "ND"},
            lambda data, indices, updates: torch.stack([data[0], updates[1], data[2], updates[0]]),
            dtypes=moved,
            dynamic={"indices": (0,), "updates": (0,)},
        ),
        Case(
            "slice",
            {"input": x(4, 6)},
            slice_((1, 0), (n - 1, 3), (1, 2)),
            lambda input: input[1:, ::2],
            dtypes=moved,
            dynamic={"input": (0,)},
        ),
        Case(
            "slice",
            {"input": x(4, 6)},
            slice_((n - 1, 5), (n, 6), (-1, -1)),
            lambda input: input.flip(0, 1),
            dynamic={"input": (0,)},
            label="backwards",
        ),
        Case(
            "slice",
            {"input": x(4, 1)},
            slice_((0, 0), (n, 5), (1, 0)),
            lambda input: input.repeat(1, 5),
            dynamic={"input": (0,)},
            label="repeated",
        ),
        *(
            Case(
                "slice",
                {"input": x(4, 6)},
                slice_((-2, -3), (8, 12), (1, 1), mode),
                lambda input, f=function: f(input),
                dynamic={"input": (1,)} if mode == "CLAMP" else {},
            )
            for mode, function in (
                ("FILL", lambda v: F.pad(v, (3, 3, 2, 2))),
                ("CLAMP", lambda v: F.pad(v[None], (3, 3, 2, 2), mode="replicate")[0]),
                ("REFLECT", lambda v: F.pad(v[None], (3, 3, 2, 2), mode="reflect")[0]),
                ("WRAP", lambda v: F.pad(v[None, None], (3, 3, 2, 2), mode="circular")[0, 0]),
            )
        ),
        Case(
            "slice",
            {"input": x(4, 6), "fill": x(values=(7.0,), constant=True)},
            slice_((-1, 0), (n + 2, 6), mode="FILL"),
            lambda input, fill: F.pad(input, (0, 0, 1, 1), value=7.0),
            dynamic={"input": (0,)},
            label="value",
        ),
    ]


def arrangements() -> list[Case]:
    n = dim("input", 0)
    return [
        *(
            Case(
                "topk",
                {"input": x(3, 8, values=tuple((i * 7) % 24 for i in range(24)))},
                {"op": op, "k": 3, "axes": (1,), **more},
                lambda input, d=descending: tuple(
                    t[:, :3] for t in torch.sort(input, 1, descending=d)
                ),
                dtypes=NUMBERS,
                dynamic={"input": (0,)},
                label=str(more.get("indices_type", "")),
            )
            for op, descending, more in (
                ("MAX", True, {}),
                ("MIN", False, {"indices_type": "INT64"}),
            )
        ),
        Case(
            "concatenation",
            {"inputs": (x(3, 2), x(3, 4), x(3, 1))},
            {"axis": 1},
            lambda inputs: torch.stack([c for t in inputs for c in t.unbind(1)], 1),
            dtypes=(*NUMBERS, "BOOL"),
            dynamic={"inputs.0": (0, 1), "inputs.1": (0,), "inputs.2": (0,)},
        ),
        Case(
            "shuffle",
            {"input": x(4, 3, 6)},
            {
                "first_transpose": (0, 2, 1),
                "reshape_dims": (n, 2, 9),
                "second_transpose": (1, 0, 2),
            },
            lambda input: input.mT.contiguous().view(4, 2, 9).transpose(0, 1),
            dtypes=(*NUMBERS, "BOOL"),
            dynamic={"input": (0,)},
            label="between transposes",
        ),
        Case(
            "shuffle",
            {"input": x(4, 3, 6)},
            {"reshape_dims": (n // 2, 2, dim("input", 1), 6)},
            lambda input: torch.stack([input[0::2], input[1::2]], 1),
            dynamic={"input": (0, 1)},
            label="two open sizes",
        ),
        Case(
            "shuffle",
            {"input": x(1, 1)},
            {"reshape_dims": ()},
            lambda input: input.sum(),
            label="to a scalar",
        ),
        Case(
            "one_hot",
            {
                "indices": ints((2, 3), 0, 3, 1, 2, 2, 0),
                "values": x(2, values=(-1, 5), constant=True),
            },
            {"depth": 4, "axis": 1},
            lambda indices, values: (F.one_hot(indices.long(), 4) * 6 - 1).mT,
            dtypes=NUMBERS,
            dynamic={"indices": (0,)},
        ),
        Case(
            "fill",
            {},
            {
                "shape": (3, 4),
                "op": "LINSPACE",
                "output_type": "FLOAT",
                "alpha": 1,
                "beta": (100, 10),
            },
            lambda: 1 + 100 * torch.arange(3.0)[:, None] + 10 * torch.arange(4.0),
            dtypes=("FLOAT",),
        ),
        Case(
            "fill",
            {"alpha_tensor": x(values=(4,)), "beta_tensor": x(1, values=(3,))},
            {"shape": (5,), "op": "LINSPACE", "output_type": "INT64"},
            lambda alpha_tensor, beta_tensor: torch.tensor([4, 7, 10, 13, 16]),
            dtypes=("INT64",),
            label="tensors",
        ),
    ]
