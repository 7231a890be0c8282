# SPDX-License-Identifier: Apache-2.0
"""Chains become one operator; equal work is done once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from .models import lowered


@pytest.mark.parametrize(
    ("function", "merged", "left"),
    [
        (lambda x: x.reshape(6, 4).reshape(2, 12) + 1, 1, {"reshape.default": 1, "add.Tensor": 1}),
        (lambda x: x.unsqueeze(0).squeeze(0) + 1, 1, {"add.Tensor": 1}),
        (lambda x: x.permute(2, 0, 1).permute(1, 2, 0) + 1, 1, {"add.Tensor": 1}),
        (lambda x: x.permute(1, 0, 2).mT + 1, 1, {"permute.default": 1, "add.Tensor": 1}),
        (lambda x: x.permute(1, 0, 2).reshape(6, 4) + 1, 0, None),
    ],
    ids=["reshapes", "cancelled", "turned back", "composed", "mixed stay"],
)
def test_merge_views(function: Callable[..., Any], merged: int, left: Any) -> None:
    result = lowered(function, torch.randn(2, 3, 4))
    assert result.effects["merge_views"] == merged
    if left is not None:
        assert result.operators == left


def test_merged_views_of_a_dynamic_batch() -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    result = lowered(
        lambda x: x.flatten(1).unflatten(1, (4, 3)).relu(),
        torch.randn(2, 3, 4),
        dynamic=(({0: batch},),),
    )
    assert result.operators["reshape.default"] == 1


def test_splitting_heads_is_one_layer() -> None:
    """TensorRT's shuffle transposes, reshapes and transposes at once."""

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.permute(1, 0, 2).reshape(6, 2, 4).permute(1, 0, 2).relu()

    assert lowered(heads, torch.randn(3, 2, 8)).layers == {"shuffle": 1, "activation": 1}


def test_what_is_written_twice_is_computed_once() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x + 1) * torch.exp(x + 1) - torch.exp(x + 2)

    result = lowered(twice, torch.randn(5))
    assert result.effects["merge_common_subexpressions"] == 2
    assert result.operators["exp.default"] == 2


def test_numbers_of_other_types_are_not_equal() -> None:
    def alike(x: torch.Tensor) -> torch.Tensor:
        return (x + 1) * (x + 1.0).exp() * x.sum(0, keepdim=True) * x.sum(1, keepdim=True)

    assert lowered(alike, torch.randn(3, 3)).effects["merge_common_subexpressions"] == 0


def test_random_numbers_are_drawn_twice() -> None:
    from trtpack.lowering.graph import run_pass
    from trtpack.lowering.merge_common_subexpressions import merge_common_subexpressions

    from .test_passes import captured

    module = captured(lambda x: torch.rand_like(x) - torch.rand_like(x), torch.ones(3))
    assert run_pass(merge_common_subexpressions, module, {}) == 0


class Projections(nn.Module):
    def __init__(self, biases: tuple[bool, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 4 + i, bias=b) for i, b in enumerate(biases))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer(x) * 2 for layer in self.layers)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str
)
def test_layers_that_share_an_input_are_one_product(biased: bool, dtype: torch.dtype) -> None:
    result = lowered(Projections((biased,) * 3).to(dtype), torch.randn(2, 5, 8, dtype=dtype))
    assert result.effects["merge_projections"] == 3
    assert result.operators["linear.default"] == 1
    assert result.layers["matrix_multiply"] == 1
    assert result.recipes == 1 + biased  # new weights can be joined again


def test_layers_with_and_without_bias_stay_apart() -> None:
    result = lowered(Projections((True, False)), torch.randn(2, 8))
    assert result.effects["merge_projections"] == 0


def test_a_weight_two_layers_share_is_not_stored_again() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) - self.b(x)

    assert lowered(Tied(), torch.randn(2, 8)).effects["merge_projections"] == 0


@pytest.mark.parametrize(
    ("function", "saved", "left"),
    [
        (lambda x: x * 2.0 * 3.0 / 4.0, 2, {"mul.Tensor": 1}),
        (lambda x: x * 1.0 + 0.0 - x / 1, 3, {"sub.Tensor": 1}),
        (lambda x: (x + 1.0) * 2.0, 0, {"add.Tensor": 1, "mul.Tensor": 1}),
    ],
    ids=["products", "ones and zeros", "others stay"],
)
def test_fold_scalars(function: Callable[..., Any], saved: int, left: Any) -> None:
    result = lowered(function, torch.randn(4))
    assert result.effects["fold_scalars"] == saved
    assert result.operators == left


def test_half_precision_rounds_at_every_step() -> None:
    result = lowered(lambda x: x * 0.1 * 3.0, torch.randn(4, dtype=torch.float16))
    assert result.effects["fold_scalars"] == 0


class Padded(nn.Module):
    def __init__(self, pads: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = pads, value
        self.layer = nn.Conv2d(3, 4, 3, padding=(1, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(nn.functional.pad(x, self.pads, value=self.value))


def test_a_convolution_pads_for_itself() -> None:
    result = lowered(Padded((2, 2, 1, 1)), torch.randn(1, 3, 8, 8))
    assert result.effects["fold_padding"] == 1
    assert result.operators == {"convolution.default": 1}


def pooled(
    kind: Callable[..., torch.Tensor],
    pads: tuple[int, ...] = (1, 1, 1, 1),
    value: float = 0.0,
    **more: Any,
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: kind(nn.functional.pad(x, pads, value=value), 3, stride=2, **more)


AVERAGE, MAXIMUM, LEAST = nn.functional.avg_pool2d, nn.functional.max_pool2d, -math.inf


@pytest.mark.parametrize(
    "function",
    [
        pooled(AVERAGE),
        pooled(AVERAGE, count_include_pad=False),
        pooled(AVERAGE, (1, 1), padding=(1, 0)),
        pooled(AVERAGE, (0, 0, 1, 1), padding=(0, 1), count_include_pad=False, divisor_override=5),
        pooled(MAXIMUM, value=LEAST),
        pooled(MAXIMUM, (1, 1), LEAST, padding=(1, 0), dilation=2),
    ],
    ids=["average", "of what is there", "both pad", "divided by 5", "maximum", "dilated"],
)
def test_a_pooling_window_pads_for_itself(function: Callable[..., Any]) -> None:
    result = lowered(function, torch.randn(1, 3, 7, 8))
    assert result.effects["fold_padding"] == 1
    assert sum(result.operators.values()) == 1


@pytest.mark.parametrize(
    "function",
    [
        pooled(AVERAGE, (0, 0, 1, 1), padding=(0, 1), count_include_pad=False),
        pooled(AVERAGE, ceil_mode=True),
        pooled(AVERAGE, (2, 2)),
        pooled(AVERAGE, (1, 0)),
        pooled(AVERAGE, value=1.0),
        pooled(MAXIMUM),
        pooled(MAXIMUM, value=LEAST, ceil_mode=True),
        pooled(MAXIMUM, value=LEAST, padding=1),
    ],
    ids=[
        "counts some padding", "rounded up", "too wide", "one end", "ones", "maximum of zeros",
        "maximum rounded up", "both too wide",
    ],
)  # fmt: skip
def test_padding_a_pooling_window_cannot_do_stays(function: Callable[..., Any]) -> None:
    assert lowered(function, torch.randn(1, 3, 8, 9)).effects["fold_padding"] == 0


@pytest.mark.parametrize("pads", [Padded((1, 2)), Padded((1, 1), 3.0), Padded((-1, -1))])
def test_padding_a_convolution_cannot_do_stays(pads: nn.Module) -> None:
    assert lowered(pads, torch.randn(1, 3, 8, 8)).effects["fold_padding"] == 0
