# SPDX-License-Identifier: Apache-2.0
"""Attention against eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.packager.converters.harness import (
    TARGETS,
    Case,
    Checker,
    Input,
    boolean,
    converted,
    dynamic,
    f32,
    given,
    kinds,
    refusal,
    weight,
)
from trtpack_runtime import reference

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


def x(*shape: int) -> Input:
    return f32(*shape, low=-1, high=1)


Q, K, V = x(2, 4, 5, 8), x(2, 4, 7, 8), x(2, 4, 7, 8)
BLIND = given([[True, False], [False, False]], torch.bool)  # the second query sees no key
SEEN = given([[True, False, False], [False, True, True]], torch.bool)


def longer(tensor: Input, length: int) -> Input:
    return dynamic(tensor, {0: (1, 2, 4), 2: (1, length, 9)})


def attention(*args: Any, **options: Any) -> Case:
    return Case(SDPA, *args, **options)


WIDER = {3: (2, 8, 16)}
CASES = [
    attention(Q, K, V),
    attention(*(dynamic(tensor, WIDER) for tensor in (Q, K, V))),
    attention(dynamic(Q, {1: (2, 4, 6)}), x(2, 2, 7, 8), x(2, 2, 7, 8), enable_gqa=True),
    attention(Q, K, V, scale=0.3),
    attention(Q, K, V, scale=1.0),
    attention(Q, Q, Q, is_causal=True),
    attention(Q, K, V, is_causal=True),
    attention(K, Q, Q, is_causal=True),
    attention(Q, K, V, x(2, 4, 5, 7)),
    attention(Q, K, V, x(5, 7)),
    attention(Q, K, V, x(2, 1, 1, 7)),
    attention(Q, K, V, boolean(2, 1, 5, 7)),
    attention(Q, K, V, boolean(2, 1, 1, 7)),
    attention(x(1, 1, 2, 8), x(1, 1, 2, 8), x(1, 1, 2, 8), BLIND),
    attention(x(1, 1, 2, 8), x(1, 1, 3, 8), x(1, 1, 3, 8), SEEN),
    attention(x(1, 1, 2, 8), x(1, 1, 3, 8), x(1, 1, 3, 8), weight(SEEN)),
    attention(x(2, 4, 5, 8), x(2, 2, 7, 8), x(2, 2, 7, 8), enable_gqa=True),
    attention(x(2, 4, 5, 8), x(2, 2, 5, 8), x(2, 2, 5, 8), is_causal=True, enable_gqa=True),
    attention(x(2, 4, 5, 8), x(2, 1, 7, 8), x(2, 1, 7, 8), boolean(5, 7), enable_gqa=True),
    attention(x(2, 4, 5, 8), x(2, 2, 7, 8), x(2, 2, 7, 8), boolean(2, 1, 1, 7), enable_gqa=True),
    attention(x(2, 4, 5, 8), x(2, 2, 7, 8), x(2, 2, 7, 8), boolean(2, 4, 1, 7), enable_gqa=True),
    attention(x(2, 4, 5, 8), x(1, 1, 7, 8), x(1, 1, 7, 8), boolean(2, 1, 1, 7)),
    attention(x(2, 5, 8), x(2, 7, 8), x(2, 7, 8)),
    attention(x(5, 8), x(7, 8), x(7, 8)),
    attention(x(2, 3, 4, 5, 8), x(2, 3, 4, 7, 8), x(2, 3, 4, 7, 8)),
    attention(Q, K, x(2, 4, 7, 6)),
    attention(x(1, 4, 5, 8), K, V),
    attention(x(2, 1, 5, 8), K, V),
    attention(Q, x(2, 1, 7, 8), x(2, 1, 7, 8)),
    attention(longer(x(2, 4, 5, 8), 5), longer(x(2, 4, 5, 8), 5), longer(x(2, 4, 5, 8), 5)),
    attention(
        longer(x(2, 4, 5, 8), 5),
        longer(x(2, 4, 5, 8), 5),
        longer(x(2, 4, 5, 8), 5),
        is_causal=True,
    ),
    attention(
        dynamic(Q, {0: (1, 2, 4), 2: (1, 5, 9)}),
        dynamic(K, {0: (1, 2, 4), 2: (9, 10, 12)}),
        dynamic(V, {0: (1, 2, 4), 2: (9, 10, 12)}),
        is_causal=True,
    ),
    attention(
        longer(x(2, 4, 5, 8), 5),
        longer(x(2, 2, 5, 8), 5),
        longer(x(2, 2, 5, 8), 5),
        dynamic(x(2, 1, 5, 5), {0: (1, 2, 4), 2: (1, 5, 9), 3: (1, 5, 9)}),
        enable_gqa=True,
    ),
]

FLASH_ON_CPU = aten._scaled_dot_product_flash_attention_for_cpu.default
MATH = aten._scaled_dot_product_attention_math.default
EFFICIENT = aten._scaled_dot_product_efficient_attention.default
CASES += [
    Case(FLASH_ON_CPU, Q, K, V, attn_mask=x(2, 1, 5, 7), scale=0.3).answering(0),
    Case(FLASH_ON_CPU, Q, Q, Q, is_causal=True).answering(0),
    Case(MATH, Q, K, V, boolean(5, 7)).answering(0),
    Case(MATH, x(2, 4, 5, 8), x(2, 2, 7, 8), x(2, 2, 7, 8), enable_gqa=True).answering(0),
]
ONLY_ON_A_GPU = [Case(EFFICIENT, Q, K, V, x(2, 4, 5, 7), False).answering(0)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_it_is_one_layer_where_tensorrt_has_it() -> None:
    assert kinds(attention(Q, K, V)) == ["elementwise", "attention"]
    before = kinds(attention(Q, K, V), target="orin@jetpack-6.2")
    assert before == ["elementwise", "matrix_multiply", "softmax", "matrix_multiply"]


@pytest.mark.parametrize("case", ONLY_ON_A_GPU, ids=str)
def test_what_pytorch_computes_only_on_a_gpu_is_attention_too(case: Case) -> None:
    assert kinds(case) == ["elementwise", "attention"]
    segment, samples = converted(case), case.samples(1)
    inputs = {f"x{i}": sample for i, sample in enumerate(samples)}
    (answer,) = reference.evaluate(segment.network, segment.constants, inputs)
    query, key, value, mask = samples
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(answer, wanted)


def test_a_mask_of_keys_leaves_the_second_product_last() -> None:
    """What follows it takes 2 % of BERT's time on TensorRT 8.6."""
    made = kinds(attention(Q, K, V, boolean(2, 1, 1, 7)), target="orin@jetpack-6.0")
    assert made[-1] == "matrix_multiply"
    made = kinds(attention(Q, K, V, boolean(2, 1, 5, 7)), target="orin@jetpack-6.0")
    assert made[-1] == "elementwise"


def test_dropout_stays_in_pytorch() -> None:
    assert refusal(SDPA, Q, K, V, dropout_p=0.5) == "TensorRT has no dropout, got 0.5"


def test_a_query_that_sees_no_key_answers_zeros() -> None:
    case = attention(x(1, 1, 2, 8), x(1, 1, 2, 8), x(1, 1, 2, 8), BLIND)
    for target in TARGETS:
        segment = converted(case, target)
        inputs = {f"x{i}": sample for i, sample in enumerate(case.samples(1))}
        (answer,) = reference.evaluate(segment.network, segment.constants, inputs)
        assert bool(answer[0, 0, 0].any())
        assert not bool(answer[0, 0, 1].any())
