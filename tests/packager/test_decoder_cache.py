# SPDX-License-Identifier: Apache-2.0
"""A decoder with a static key-value cache: state slots, one engine, the model's numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trtpack_runtime
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress

T = torch.Tensor
Store = Callable[[T, T, T], None]

VOCABULARY, DIM, HEADS, KEY_HEADS, LENGTH = 32, 32, 4, 2, 12
SIZE = DIM // HEADS


def by_index_copy(cache: T, new: T, position: T) -> None:
    cache.index_copy_(2, position, new)


def by_index_put(cache: T, new: T, position: T) -> None:
    cache[:, :, position] = new


def by_scatter(cache: T, new: T, position: T) -> None:
    cache.scatter_(2, position[None, None, :, None].expand_as(new), new)


def by_where(cache: T, new: T, position: T) -> None:
    here = torch.arange(LENGTH) == position
    cache.copy_(torch.where(here[None, None, :, None], new, cache))


def by_slice(cache: T, new: T, position: T) -> None:
    """As a ring does: what is there moves up by one; the newest is the last."""
    cache.copy_(torch.cat([cache[:, :, 1:], new], 2))


class Decoder(nn.Module):
    """One block: RMS norm, rotary positions, grouped queries, a cache of keys and values."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.is_ring = store, store is by_slice
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        self.norm = nn.RMSNorm(DIM)
        self.query = nn.Linear(DIM, DIM, bias=False)
        self.key = nn.Linear(DIM, KEY_HEADS * SIZE, bias=False)
        self.value = nn.Linear(DIM, KEY_HEADS * SIZE, bias=False)
        self.out, self.head = nn.Linear(DIM, DIM), nn.Linear(DIM, VOCABULARY)
        self.register_buffer("keys", torch.zeros(2, KEY_HEADS, LENGTH, SIZE))
        self.register_buffer("values", torch.zeros(2, KEY_HEADS, LENGTH, SIZE))
        frequencies = 1 / (10000 ** (torch.arange(0, SIZE, 2) / SIZE))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, tokens: T, position: T) -> T:
        x = self.embedding(tokens)
        y = self.norm(x)
        query, key, value = (
            layer(y).view(*tokens.shape, -1, SIZE).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        self.store(self.keys, self.rotated(key, position), position)
        self.store(self.values, value, position)
        slots = torch.arange(LENGTH)
        seen = slots[None] >= LENGTH - 1 - position if self.is_ring else slots <= position[:, None]
        attended = F.scaled_dot_product_attention(
            self.rotated(query, position), self.keys, self.values, attn_mask=seen, enable_gqa=True
        )
        return self.head(x + self.out(attended.transpose(1, 2).reshape(*tokens.shape, -1)))

    def rotated(self, x: T, position: T) -> T:
        angles = position[:, None].float() * self.frequencies
        angles = torch.cat([angles, angles], -1)
        low, high = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-high, low], -1) * angles.sin()


def built(model: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> BuildReport:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    options = Options(targets=("rtx-4090",), output=folder / "bundle.tar")
    inputs = (torch.randint(0, VOCABULARY, (2, 1)), torch.tensor([0]))
    return build((model, inputs), options, Progress())


@pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")  # there is no GPU
@pytest.mark.parametrize(
    "store",
    [
        by_index_copy,
        pytest.param(by_index_put, marks=pytest.mark.slow),
        pytest.param(by_scatter, marks=pytest.mark.slow),
        pytest.param(by_where, marks=pytest.mark.slow),
        pytest.param(by_slice, marks=pytest.mark.slow),
    ],
)
def test_steps_of_a_decoder_are_one_engine_with_the_models_numbers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Decoder(store).eval()
    report = built(model, tmp_path, monkeypatch)
    (target,) = report.targets
    assert [segment.kind for segment in target.segments] == ["tensorrt"]
    assert target.refused == ()
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    first: list[T] = []
    for step in range(3):
        tokens, position = torch.full((2, 1), 3 + 5 * step), torch.tensor([step])
        with torch.no_grad():
            want = model(tokens, position)
        have = loaded(tokens, position)
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5)
        first.append(have)
    assert not torch.allclose(loaded(torch.full((2, 1), 3), torch.tensor([3])), first[0])
    loaded.reset()
    again = loaded(torch.full((2, 1), 3), torch.tensor([0]))
    torch.testing.assert_close(again, first[0], rtol=0, atol=0)
