# SPDX-License-Identifier: Apache-2.0
"""Hand-written activations, norms and attention become the operators they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from .models import lowered

HALF = math.sqrt(0.5)
ROOT = math.sqrt(2 / math.pi)


def gelus() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    return {
        "erf": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "erf, half last": lambda x: 0.5 * (x * (torch.erf(x * HALF) + 1)),
        "erf, by division": lambda x: x * (torch.erf(x / math.sqrt(2)) + 1) / 2,
        "tanh": lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        "tanh, products": lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x * x * x))),
        "tanh, squares": lambda x: x * 0.5 * (1 + torch.tanh((0.044715 * x**2 * x + x) * ROOT)),
    }


@pytest.mark.parametrize("form", gelus())
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str
)
def test_gelu_in_every_form(form: str, dtype: torch.dtype) -> None:
    result = lowered(gelus()[form], torch.randn(4, 33, dtype=dtype))
    assert result.effects["recognise_gelu"] == 1
    assert result.operators == {"gelu.default": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 0.5 * (1.0 + torch.erf(x / 1.5)),
        lambda x: x * 0.25 * (1.0 + torch.erf(x * HALF)),
        lambda x: x * 0.5 * (2.0 + torch.erf(x * HALF)),
        lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.05 * x**3))),
        lambda x: 0.5 * (x + 1) * (1.0 + torch.erf(x * HALF)),
    ],
    ids=["another root", "another half", "another one", "another cube", "another factor"],
)
def test_what_only_looks_like_gelu_stays(function: Callable[..., Any]) -> None:
    assert lowered(function, torch.randn(4, 33)).effects["recognise_gelu"] == 0


def test_gelu_whose_parts_are_answered_stays() -> None:
    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        curve = torch.erf(x * HALF)
        return x * 0.5 * (1.0 + curve), curve

    assert lowered(both, torch.randn(3)).effects["recognise_gelu"] == 0


def test_silu() -> None:
    result = lowered(lambda x: x * torch.sigmoid(x), torch.randn(5))
    assert result.operators == {"silu.default": 1}
    other = lowered(lambda x, y: y * torch.sigmoid(x), torch.randn(5), torch.randn(5))
    assert other.effects["recognise_gelu"] == 0


class HandNorm(nn.Module):
    def __init__(self, form: str, correction: int = 0, axis: int = -1, affine: bool = True) -> None:
        super().__init__()
        self.form, self.correction, self.axis, self.affine = form, correction, axis, affine
        self.weight = nn.Parameter(torch.rand(16) + 0.5)
        self.bias = nn.Parameter(torch.rand(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(self.axis, keepdim=True)
        if self.form == "squares":
            variance = (centred**2).mean(self.axis, keepdim=True)
        else:
            variance = x.var(self.axis, keepdim=True, correction=self.correction)
        if self.form == "rsqrt":
            y = centred * torch.rsqrt(variance + 1e-5)
        elif self.form == "power":
            y = (variance + 1e-5) ** -0.5 * centred
        else:
            y = centred / torch.sqrt(variance + 1e-5)
        return self.weight * y + self.bias if self.affine else y


@pytest.mark.parametrize("form", ["sqrt", "rsqrt", "power", "squares"])
def test_layer_norm_in_every_form(form: str) -> None:
    result = lowered(HandNorm(form), torch.randn(2, 5, 16))
    assert result.effects["recognise_layer_norm"] == 1
    assert result.operators == {"layer_norm.default": 1}


def test_layer_norm_without_weights_and_of_a_dynamic_batch() -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    norm = HandNorm("squares", affine=False)
    result = lowered(norm, torch.randn(2, 16), dynamic=({0: batch},))
    assert result.operators == {"layer_norm.default": 1}


@pytest.mark.parametrize(
    "norm", [HandNorm("sqrt", correction=1), HandNorm("sqrt", axis=1, affine=False)]
)
def test_what_only_looks_like_a_layer_norm_stays(norm: nn.Module) -> None:
    x = torch.randn(2, 16, 16)
    assert lowered(norm, x).effects["recognise_layer_norm"] == 0


class HandRmsNorm(nn.Module):
    def __init__(self, form: str, axis: int = -1, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.form, self.axis = form, axis
        self.weight = nn.Parameter((torch.rand(16) + 0.5).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "llama":
            wide = x.to(torch.float32)
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
            return self.weight * wide.to(x.dtype)
        if self.form == "t5":
            spread = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
            return self.weight * (x * torch.rsqrt(spread + 1e-6)).to(self.weight.dtype)
        if self.form == "gemma":
            wide = x.float()
            wide = wide * (wide * wide).mean(-1, keepdim=True).add(1e-6).pow(-0.5)
            return (wide * (1.0 + self.weight.float())).type_as(x)
        spread = (x**2).mean(self.axis, keepdim=True)
        if self.form == "epsilon outside":
            return x / (torch.sqrt(spread) + 1e-6) * self.weight
        return x / torch.sqrt(spread + 1e-6) * self.weight


@pytest.mark.parametrize("form", ["llama", "t5", "gemma", "plain"])
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)],
    ids=str,
)
def test_rms_norm_in_every_form(form: str, dtype: torch.dtype) -> None:
    result = lowered(HandRmsNorm(form, dtype=dtype), torch.randn(2, 5, 16).to(dtype))
    rounds_at_every_step = form == "plain" and dtype != torch.float32
    assert result.effects["recognise_rms_norm"] == (not rounds_at_every_step)
    assert result.operators["rms_norm.default"] == (not rounds_at_every_step)
    if dtype == torch.float32:
        assert result.operators == {"rms_norm.default": 1}


def test_rms_norm_of_a_dynamic_batch() -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    result = lowered(HandRmsNorm("llama"), torch.randn(2, 16), dynamic=({0: batch},))
    assert result.operators == {"rms_norm.default": 1}


@pytest.mark.parametrize("norm", [HandRmsNorm("epsilon outside"), HandRmsNorm("plain", axis=1)])
def test_what_only_looks_like_an_rms_norm_stays(norm: nn.Module) -> None:
    assert lowered(norm, torch.randn(2, 16, 16)).effects["recognise_rms_norm"] == 0


def attentions() -> dict[str, Callable[..., torch.Tensor]]:
    def hidden(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(mask < 0, -1e9)

    return {
        "divided": lambda q, k, v, m: ((q @ k.transpose(-2, -1)) / 2.5).softmax(-1) @ v,
        "scaled": lambda q, k, v, m: (0.3 * (q @ k.mT)).softmax(-1) @ v,
        "plain": lambda q, k, v, m: (q @ k.permute(0, 1, 3, 2)).softmax(-1) @ v,
        "added": lambda q, k, v, m: ((q @ k.mT) / 2 + m).softmax(-1) @ v,
        "filled": lambda q, k, v, m: hidden((q @ k.mT) / 2, m).softmax(-1) @ v,
    }


@pytest.mark.parametrize("form", attentions())
def test_attention_in_every_form(form: str) -> None:
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = torch.randn(2, 1, 5, 7)
    mask[..., 0] = 1
    result = lowered(attentions()[form], q, k, v, mask)
    assert result.effects["recognise_attention"] == 1
    assert result.operators["scaled_dot_product_attention.default"] == 1


def with_shares(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    shares = (q @ k.mT).softmax(-1)
    return shares @ v, shares


@pytest.mark.parametrize(
    "function",
    [
        lambda q, k, v: (q @ k.mT).softmax(-2) @ v,
        lambda q, k, v: (q @ k).softmax(-1) @ v,
        lambda q, k, v: (q @ k.mT).masked_fill(q.sum() > 0, -2.0).softmax(-1) @ v,
        with_shares,
    ],
    ids=["another dim", "no transpose", "a fill that counts", "shares are read"],
)
def test_what_only_looks_like_attention_stays(function: Callable[..., Any]) -> None:
    x = torch.randn(2, 3, 6, 6)
    assert lowered(function, x, x + 1, x - 1).effects["recognise_attention"] == 0


def test_true_masks_are_dropped() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(4, 4, dtype=torch.bool)
        seen = torch.where(mask, x, torch.zeros_like(x))
        shown = seen.masked_fill(~mask, 7.0)
        return nn.functional.scaled_dot_product_attention(shown, shown * 2, x, attn_mask=mask)

    result = lowered(masked, torch.randn(2, 4, 4))
    assert result.effects["drop_true_masks"] == 3
    assert set(result.operators) == {"mul.Tensor", "scaled_dot_product_attention.default"}


@pytest.mark.parametrize("first", [True, False])
def test_a_mask_and_what_is_true_is_the_mask(first: bool) -> None:
    """As Hugging Face's models join the mask of their padding with that of their layout."""

    def masked(x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        layout, keys = torch.ones(2, 1, 4, 4, dtype=torch.bool), keys[:, None, None, :]
        mask = layout & keys if first else keys & layout
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    seen = torch.tensor([[True, False, True, True], [True, True, False, False]])
    result = lowered(masked, torch.randn(2, 3, 4, 8), seen)
    assert result.effects["drop_true_masks"] == 1
    assert "bitwise_and.Tensor" not in result.operators


def test_a_mask_without_a_size_for_every_key_stays() -> None:
    def masked(x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(2, 1, 4, 4, dtype=torch.bool) & queries[:, None, :, None]
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    result = lowered(masked, torch.randn(2, 3, 4, 8), torch.tensor([[True] * 4, [True] * 4]))
    assert result.effects["drop_true_masks"] == 0


def test_masks_that_hide_something_stay() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(torch.eye(4, dtype=torch.bool), 7.0)

    result = lowered(masked, torch.randn(2, 4, 4))
    assert result.effects["drop_true_masks"] == 0
    assert result.operators["masked_fill.Scalar"] == 1


class Learned(nn.Module):
    """Learns what stands at 0 and 1 now."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(5, 5))
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("factor", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.bias)
        mixed = mixed * self.gain * 2.0 + self.shift + self.bias[0, 0].exp()
        return mixed * self.factor * (1.0 + torch.erf(mixed * HALF))


def test_no_rewrite_depends_on_a_weight() -> None:
    """New weights would find their values baked into the graph."""
    result = lowered(Learned(), torch.randn(2, 5, 8))
    for name in ("drop_true_masks", "fold_scalars", "recognise_gelu"):
        assert result.effects[name] == 0
