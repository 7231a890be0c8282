# SPDX-License-Identifier: Apache-2.0
"""What is inferred is what is computed; wrong layers are told by operand and attribute."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.layer_cases import CASES, VARIANTS, Case
from trtpack_runtime import dims
from trtpack_runtime.dims import dim
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.errors import NetworkError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Tensor
from trtpack_tools.infer import infer
from trtpack_tools.infer.rules import RULES


def test_every_kind_has_a_rule_and_a_case() -> None:
    assert set(RULES) == set(KINDS)
    assert {case.kind for case in CASES} == set(KINDS) - {"plugin"}  # its library has the cases


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("case", "dtype"), VARIANTS, ids=str)
def test_the_inferred_type_and_shape_are_the_computed_ones(
    case: Case, dtype: str, dynamic: bool
) -> None:
    network = case.network(dtype, dynamic=dynamic)
    values = case.values(dtype)
    answers = case.answers(values)
    known = values | dict(zip(network.outputs, answers, strict=True))
    for name, answer in zip(network.outputs, answers, strict=True):
        declared = network.tensors[name]
        shape = [
            dims.evaluate(size, lambda tensor, axis: known[tensor].shape[axis])
            for size in declared.shape
        ]
        assert shape == list(answer.shape)
        if declared.dtype == "BOOL":
            assert by_torch(answer.dtype).name == "BOOL"
        elif not (dynamic or KINDS[case.kind].sized_by_data):
            assert declared.is_static


n = dim("x", 0)
X = Tensor("x", "FLOAT", (n, 4, 6))
IMAGE = Tensor("i", "FLOAT", (1, 4, 8, 8))
CONV = {
    "num_output_maps": 4,
    "kernel_shape": (3, 3),
    "stride_nd": (1, 1),
    "pre_padding": (0, 0),
    "post_padding": (0, 0),
    "dilation_nd": (1, 1),
    "num_groups": 1,
}


@pytest.mark.parametrize(
    ("kind", "operands", "attributes", "message"),
    [
        ("convolve", {"input": X}, {}, "kind convolve: there is no such layer kind"),
        ("unary", {}, {"op": "EXP"}, "kind unary: operand input: is missing"),
        (
            "unary",
            {"input": X, "y": X},
            {"op": "EXP"},
            "kind unary: operand y: wanted one of input",
        ),
        ("unary", {"input": (X, X)}, {"op": "EXP"}, "operand input: wanted one tensor, got 2"),
        ("unary", {"input": X}, {}, "kind unary: attribute op: is missing"),
        ("unary", {"input": X}, {"op": "EXPP"}, "attribute op: wanted ABS or .* got 'EXPP'"),
        ("unary", {"input": X}, {"op": "EXP", "alpha": 1}, "attribute alpha: wanted one of op"),
        ("unary", {"input": X}, {"op": "NOT"}, r"wanted BOOL, got x: FLOAT\[x.0, 4, 6\]"),
        ("activation", {"input": X}, {"type": "ELU"}, "attribute alpha: ELU needs alpha"),
        (
            "elementwise",
            {"input1": X, "input2": Tensor("h", "HALF", (1, 4, 6))},
            {"op": "SUM"},
            r"operand input2: wanted FLOAT as input1, got h: HALF\[1, 4, 6\]",
        ),
        (
            "elementwise",
            {"input1": X, "input2": Tensor("y", "FLOAT", (4, 6))},
            {"op": "SUM"},
            "operand input2: wanted rank 3",
        ),
        (
            "elementwise",
            {"input1": X, "input2": Tensor("y", "FLOAT", (n, 5, 6))},
            {"op": "SUM"},
            "does not broadcast with input1 x",
        ),
        (
            "elementwise",
            {"input1": X, "input2": Tensor("y", "FLOAT", (n + 1, 4, 6))},
            {"op": "SUM"},
            "does not broadcast with input1 x",
        ),
        (
            "cast",
            {"input": Tensor("b", "UINT8", (4,))},
            {"to_type": "INT32"},
            "UINT8 is cast from and to FLOAT and HALF, got UINT8 to INT32",
        ),
        (
            "softmax",
            {"input": X},
            {"axes": (3,)},
            "attribute axes: wanted an axis from 0 to 2, got 3",
        ),
        ("softmax", {"input": X}, {"axes": (-1,)}, r"attribute axes: wanted axes, got \(-1,\)"),
        ("softmax", {"input": Tensor("v", "FLOAT", (4,))}, {"axes": (0,)}, "wanted rank 2 or more"),
        (
            "shuffle",
            {"input": X},
            {"reshape_dims": (n, 25)},
            r"wanted as many elements as \[x.0, 4, 6\], got \[x.0, 25\]",
        ),
        (
            "shuffle",
            {"input": Tensor("v", "FLOAT", (4, 6))},
            {"reshape_dims": (5, 5)},
            r"wanted as many elements as \[4, 6\], got \[5, 5\]",
        ),
        ("shuffle", {"input": X}, {"first_transpose": (0, 1)}, "wanted a permutation of 3 dims"),
        (
            "convolution_nd",
            {"input": IMAGE, "kernel": Tensor("k", "FLOAT", (4, 3, 3, 3))},
            CONV,
            r"operand kernel: wanted shape \[4, 4, 3, 3\]",
        ),
        (
            "convolution_nd",
            {"input": IMAGE, "kernel": Tensor("k", "FLOAT", (4, 4, 3, 3))},
            CONV | {"post_padding": (-1, 0)},
            "padding: wanted sizes of at least 0",
        ),
        (
            "convolution_nd",
            {"input": X, "kernel": Tensor("k", "FLOAT", (4, 4, 3))},
            CONV,
            "operand input: wanted rank 4 or 5",
        ),
        (
            "slice",
            {"input": X},
            {"start": (0, 2, 0), "shape": (n, 3, 6), "stride": (1, 1, 1), "mode": "STRICT_BOUNDS"},
            r"start \[0, 2, 0\], shape \[x.0, 3, 6\] and stride \[1, 1, 1\] leave x",
        ),
        (
            "slice",
            {"input": X},
            {"start": (1, 0, 0), "shape": (n, 4, 6), "stride": (1, 1, 1), "mode": "STRICT_BOUNDS"},
            "leave x",
        ),
        (
            "concatenation",
            {"inputs": (X, Tensor("y", "FLOAT", (n, 5, 5)))},
            {"axis": 1},
            "does not fit x",
        ),
        (
            "topk",
            {"input": X},
            {"op": "MAX", "k": 7, "axes": (2,)},
            "attribute k: wanted 1 to 6, got 7",
        ),
        (
            "fill",
            {},
            {"shape": (2,), "op": "LINSPACE", "output_type": "HALF", "alpha": 0, "beta": (0,)},
            "LINSPACE makes no HALF",
        ),
        (
            "fill",
            {},
            {
                "shape": (2,),
                "op": "RANDOM_UNIFORM",
                "output_type": "FLOAT",
                "alpha": 0,
                "beta": (0,),
            },
            "wanted LINSPACE, got RANDOM_UNIFORM",
        ),
        ("einsum", {"inputs": (X,)}, {"equation": "iij->ij"}, "'iij' repeats a letter"),
        ("einsum", {"inputs": (X,)}, {"equation": "ij->i"}, "'ij' in 'ij->i' is not for x"),
    ],
)
def test_a_wrong_layer_is_refused(
    kind: str, operands: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(NetworkError, match=message) as refusal:
        infer(kind, operands, attributes)
    assert refusal.value.exit_code == 4


def test_open_sizes_that_may_agree_are_taken_as_equal() -> None:
    other = Tensor("y", "FLOAT", (dim("y", 0), 4, 6))
    assert infer("elementwise", {"input1": X, "input2": other}, {"op": "SUM"}) == [
        ("FLOAT", (n, 4, 6))
    ]
    fixed = Tensor("z", "FLOAT", (5, 4, 6))
    assert infer("elementwise", {"input1": X, "input2": fixed}, {"op": "SUM"}) == [
        ("FLOAT", (5, 4, 6))
    ]
