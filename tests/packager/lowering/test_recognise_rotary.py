# SPDX-License-Identifier: Apache-2.0
"""Hand-written rotary position embeddings become the operator they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .models import lowered

POSITIONS = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.5, 0.1, 0.01])
Turn = Callable[[Tensor, Tensor], Tensor]


def rotate_half(x: Tensor, angle: Tensor) -> Tensor:
    angle = torch.cat((angle, angle), -1)
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()


def by_halves(x: Tensor, angle: Tensor) -> Tensor:
    (first, second), cos, sin = x.chunk(2, -1), angle.cos(), angle.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


def rotate_neighbours(x: Tensor, angle: Tensor) -> Tensor:
    cos, sin = (t.repeat_interleave(2, -1) for t in (angle.cos(), angle.sin()))
    rotated = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return rotated * sin + x * cos


def by_neighbours(x: Tensor, angle: Tensor) -> Tensor:
    (first, second), cos, sin = x.unflatten(-1, (-1, 2)).unbind(-1), angle.cos(), angle.sin()
    return torch.stack((cos * first - sin * second, second * cos + first * sin), -1).flatten(-2)


def as_complex(x: Tensor, angle: Tensor) -> Tensor:
    turn = torch.polar(torch.ones_like(POSITIONS), POSITIONS)
    numbers = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(numbers * turn).flatten(-2).type_as(x)


FORMS = (rotate_half, by_halves, rotate_neighbours, by_neighbours, as_complex)


OLD = pytest.param("orin@jetpack-6.0", marks=pytest.mark.slow)
HALF = pytest.param(torch.float16, marks=pytest.mark.slow)


@pytest.mark.parametrize("turn", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize("target", ["rtx-4090", OLD])
def test_rotary_embedding_in_every_form(turn: Turn, dtype: torch.dtype, target: str) -> None:
    x = torch.randn(2, 3, 5, 8, dtype=dtype)
    result = lowered(lambda x: turn(x, POSITIONS.to(dtype)), x, target=target)
    assert result.effects["recognise_rotary"] == 1
    assert set(result.operators) <= {"trtpack.rotary_embedding.default", "_to_copy.default"}
    if target == "rtx-4090":
        assert result.layers["rotary_embedding"] == 1
        assert set(result.layers) <= {"rotary_embedding", "slice", "cast"}
    else:
        assert result.layers["rotary_embedding"] == 0
        assert result.layers["elementwise"] == 3


@pytest.mark.parametrize(
    "turn", [*FORMS[:2], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[2:4])]
)
@pytest.mark.parametrize("target", ["rtx-4090", OLD])
def test_rotary_embedding_of_open_sizes(turn: Turn, target: str) -> None:
    """Heads behind the positions, which are an input."""
    batch, length = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("n", min=2, max=9)

    def model(x: Tensor, positions: Tensor) -> Tensor:
        angle = positions[..., None, None] * POSITIONS[1]
        return turn(x, angle)

    result = lowered(
        model,
        torch.randn(2, 5, 3, 8),
        torch.arange(10.0).reshape(2, 5),
        dynamic=(({0: batch, 1: length}, {0: batch, 1: length}),),
        target=target,
    )
    assert result.effects["recognise_rotary"] == 1
    assert result.layers["rotary_embedding"] == (target == "rtx-4090")


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8), (2, 2, 3, 5, 8)], ids=str)
def test_rotary_embedding_of_any_rank(shape: tuple[int, ...]) -> None:
    result = lowered(lambda x: by_halves(x, POSITIONS), torch.randn(shape))
    assert result.effects["recognise_rotary"] == 1


class Cached(nn.Module):
    """Reads cos and sin of both halves from tables."""

    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        both = torch.cat((POSITIONS, POSITIONS), -1)
        self.register_buffer("cos", both.cos(), persistent=persistent)
        self.register_buffer("sin", both.sin(), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        rotated = torch.cat((-x[..., 4:], x[..., :4]), -1)
        return x * self.cos + rotated * self.sin


def test_tables_count_where_no_new_weights_change_them() -> None:
    x = torch.randn(2, 3, 5, 8)
    assert lowered(Cached(persistent=False), x).effects["recognise_rotary"] == 1
    assert lowered(Cached(persistent=True), x).effects["recognise_rotary"] == 0


def test_queries_and_keys_share_their_angles() -> None:
    def model(q: Tensor, k: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        angle = p[:, None, :, None] * POSITIONS[1]
        return rotate_half(q, angle), rotate_half(k, angle)

    x = torch.randn(2, 3, 5, 8)
    result = lowered(model, x, x[:, :1], torch.arange(10.0).reshape(2, 5))
    assert result.layers["rotary_embedding"] == 2
    assert result.layers["unary"] == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x, c: x * c + torch.cat((-x[..., 4:], x[..., :4]), -1) * c.sin(),
        lambda x, c: x * c[:, :1] + torch.cat((x[..., 4:], -x[..., :4]), -1) * c[:, :1],
        lambda x, c: x * c[:, :1] + torch.cat((-x[..., 3:], x[..., :3]), -1) * c[:, :1],
        lambda x, c: torch.cat((x[..., :4] * 2 - x[..., 4:] * 3, x[..., 4:] + x[..., :4]), -1),
        lambda x, c: torch.stack((-x[..., 4:], x[..., :4]), -1).flatten(-2) + x * c,
    ],
    ids=["angles differ", "the other sign", "no halves", "numbers", "mixed"],
)
def test_what_only_looks_like_a_rotary_embedding_stays(function: Callable[..., Any]) -> None:
    result = lowered(function, torch.randn(2, 3, 5, 8), torch.randn(5, 8))
    assert result.effects["recognise_rotary"] == 0
