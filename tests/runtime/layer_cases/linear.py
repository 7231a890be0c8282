# SPDX-License-Identifier: Apache-2.0
"""Products, reductions, normalisation and attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from tests.runtime.layer_cases.case import FLOATS, NUMBERS, Case, Operand, x

T = torch.Tensor


def products() -> list[Case]:
    return [
        Case(
            "matrix_multiply",
            {"input0": x(2, 3, 4), "input1": x(1, 5, 4)},
            {"op0": "NONE", "op1": "TRANSPOSE"},
            lambda input0, input1: torch.einsum("bij,kj->bik", input0, input1[0]),
            dynamic={"input0": (0, 1)},
        ),
        Case(
            "matrix_multiply",
            {"input0": x(2, 4, 3), "input1": x(2, 4)},
            {"op0": "TRANSPOSE", "op1": "VECTOR"},
            lambda input0, input1: torch.einsum("bji,bj->bi", input0, input1),
            dynamic={"input0": (0,), "input1": (0,)},
        ),
        Case(
            "matrix_multiply",
            {"input0": x(2, 4), "input1": x(2, 4, 3)},
            {"op0": "VECTOR", "op1": "NONE"},
            lambda input0, input1: torch.einsum("bj,bjk->bk", input0, input1),
        ),
        Case(
            "matrix_multiply",
            {"input0": x(4), "input1": x(4)},
            {"op0": "VECTOR", "op1": "VECTOR"},
            lambda input0, input1: (input0 * input1).sum(),
        ),
        Case(
            "einsum",
            {"inputs": (x(2, 3, 4), x(2, 5, 4))},
            {"equation": "bid,bjd->bij"},
            lambda inputs: inputs[0] @ inputs[1].mT,
            dynamic={"inputs.0": (0,), "inputs.1": (0,)},
        ),
        Case(
            "einsum",
            {"inputs": (x(3, 4), x(4, 5))},
            {"equation": "ij,jk"},
            lambda inputs: inputs[0] @ inputs[1],
            label="implicit",
        ),
        Case(
            "softmax",
            {"input": x(3, 4, 5)},
            {"axes": (1,)},
            lambda input: input.exp() / input.exp().sum(1, keepdim=True),
            dynamic={"input": (0, 2)},
        ),
        *(
            Case(
                "reduce",
                {"input": x(3, 4, 5)},
                {"op": op, "axes": axes, "keep_dims": keep},
                lambda input, f=function, a=axes, k=keep: f(input, a, k),
                dtypes=FLOATS if op == "AVG" else NUMBERS,
                dynamic={"input": (0, 1)},
                label=f"{axes} {keep}",
            )
            for op, function in {
                "SUM": lambda v, a, k: v.sum(a, keepdim=k),
                "AVG": lambda v, a, k: v.sum(a, keepdim=k) / (v.numel() / v.sum(a).numel()),
                "MAX": lambda v, a, k: v.amax(a, keepdim=k),
                "MIN": lambda v, a, k: -(-v).amax(a, keepdim=k),
                "PROD": _product,
            }.items()
            for axes, keep in (((1,), False), ((0, 2), True))
        ),
        *_normalizations(),
        *_attentions(),
        *_rotations(),
    ]


def _product(v: T, axes: tuple[int, ...], keep: bool) -> T:
    for axis in sorted(axes, reverse=True):
        v = v.cumprod(axis).narrow(axis, v.shape[axis] - 1, 1)
    return v if keep else v.squeeze(axes)


def _normalizations() -> list[Case]:
    def image(channels: int) -> dict[str, Operand]:
        return {"input": x(2, 4, 3, 5), "scale": x(1, channels, 1, 1), "bias": x(1, channels, 1, 1)}

    layer = {"input": x(3, 4, 6), "scale": x(1, 1, 6), "bias": x(1, 1, 6)}
    cases = []
    for kind in ("normalization", "normalization_v2"):
        groups = 2 if kind == "normalization" else 4
        cases += [
            Case(
                kind,
                layer,
                {"axes": (2,), "epsilon": 1e-5},
                lambda input, scale, bias: F.layer_norm(
                    input, (6,), scale.flatten(), bias.flatten(), 1e-5
                ),
                dynamic={"input": (0, 1)},
                label="layer",
            ),
            Case(
                kind,
                image(4),
                {"axes": (2, 3), "epsilon": 1e-3},
                lambda input, scale, bias: F.instance_norm(
                    input, weight=scale.flatten(), bias=bias.flatten(), eps=1e-3
                ),
                dynamic={"input": (0, 2)},
                label="instance",
            ),
            Case(
                kind,
                image(groups),
                {"axes": (2, 3), "epsilon": 1e-5, "num_groups": 2},
                lambda input, scale, bias, c=groups: F.group_norm(
                    input,
                    2,
                    scale.flatten().repeat_interleave(4 // c),
                    bias.flatten().repeat_interleave(4 // c),
                ),
                dynamic={"input": (0,)},
                label="group",
            ),
        ]
    return cases


def _attentions() -> list[Case]:
    def heads(keys: int = 5, groups: int = 4) -> dict[str, Operand]:
        return {
            "query": x(2, 4, 5, 16),
            "key": x(2, groups, keys, 16),
            "value": x(2, groups, keys, 16),
        }

    def attend(query: T, key: T, value: T, mask: T | None = None, **more: Any) -> T:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=1.0, **more)

    plain = {"normalization_op": "SOFTMAX", "causal": False, "decomposable": True}
    batch = {"query": (0,), "key": (0,), "value": (0,)}
    return [
        Case("attention", heads(7), plain, attend, dynamic=batch),
        Case(
            "attention",
            heads(7),
            {**plain, "causal": True},
            lambda query, key, value: attend(query, key, value, is_causal=True),
            label="causal",
        ),
        Case(
            "attention",
            {**heads(), "mask": x(1, 1, 5, 5)},
            plain,
            attend,
            dynamic=batch,
            label="added mask",
        ),
        Case(
            "attention",
            {
                **heads(),
                "mask": x(2, 1, 5, 5, dtype="BOOL", values=((True,) * 3 + (False,) * 2) * 10),
            },
            plain,
            attend,
            label="mask",
        ),
        Case(
            "attention",
            heads(groups=2),
            plain,
            lambda query, key, value: attend(query, key, value, enable_gqa=True),
            label="grouped",
        ),
        Case(
            "attention",
            heads(),
            {**plain, "normalization_op": "NONE"},
            lambda query, key, value: (query @ key.mT) @ value,
            label="none",
            dtypes=("FLOAT",),
        ),
    ]


def _rotations() -> list[Case]:
    def turned(input: T, cos: T, sin: T, *, pairs: tuple[int, int], dim: int) -> T:
        plane = input.unflatten(-1, pairs).movedim(dim, -1).contiguous()
        angle = torch.complex(cos.float(), sin.float()).unsqueeze(1)
        product = torch.view_as_real(torch.view_as_complex(plane.float()) * angle)
        return product.movedim(-1, dim).flatten(-2).to(input.dtype)

    operands = {"input": x(2, 3, 5, 8), "cos": x(2, 5, 4), "sin": x(2, 5, 4)}
    return [
        Case(
            "rotary_embedding",
            operands,
            {"interleaved": interleaved},
            partial(turned, pairs=pairs, dim=dim),
            dynamic={"input": (0, 2), "cos": (0, 1), "sin": (0, 1)},
            label=label,
        )
        for interleaved, pairs, dim, label in (
            (False, (2, 4), -2, "halves"),
            (True, (4, 2), -1, "interleaved"),
        )
    ]
