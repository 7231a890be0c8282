# SPDX-License-Identifier: Apache-2.0
"""Text generation: one bundle with two methods, which share the weights and the cache of keys and
values. ``prefill`` reads a prompt of any length, ``decode`` adds one token after the other.

    python docs/examples/generate_text.py [TARGET]
    trtpack build docs/examples/generate_text.py:make_model -t orin
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from compare import loaded, median_ms, place, told
from torch import Tensor, nn

import trtpack

WORDS, WIDTH, HEADS, LAYERS, LONGEST = 200, 64, 4, 2, 64


class Layer(nn.Module):
    """Attention over what a cache has, which the new tokens are written to first."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)])
        self.split, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        for name in ("keys", "values"):
            empty = torch.zeros(1, HEADS, LONGEST, WIDTH // HEADS)
            self.register_buffer(name, empty, persistent=False)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        shape = (1, x.shape[1], HEADS, WIDTH // HEADS)
        parts = self.split(self.norms[0](x)).chunk(3, -1)
        query, key, value = (part.view(shape).transpose(1, 2) for part in parts)
        keys, values = self.get_buffer("keys"), self.get_buffer("values")
        keys.index_copy_(2, places, key)
        values.index_copy_(2, places, value)
        seen = torch.arange(LONGEST) <= places[:, None]
        found = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        x = x + self.out(found.transpose(1, 2).reshape(x.shape))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


class Writer(nn.Module):
    """A decoder. Both methods answer the scores of the token that comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.scores = nn.Linear(WIDTH, WORDS)

    def prefill(self, prompt: Tensor) -> Tensor:
        return self.read(prompt, torch.arange(prompt.shape[1]))

    def decode(self, token: Tensor, place: Tensor) -> Tensor:
        return self.read(token, place)

    def read(self, tokens: Tensor, places: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(places)
        for layer in self.layers:
            x = layer(x, places)
        return self.scores(x[:, -1])


def make_model() -> tuple[nn.Module, dict[str, trtpack.Method]]:
    """The writer with random weights, and how its methods are called."""
    torch.manual_seed(0)
    prompt = trtpack.Input((1, (2, 16, LONGEST)), dtype="int64", low=0, high=WORDS)
    token = trtpack.Input((1, 1), dtype="int64", low=0, high=WORDS)
    at = trtpack.Input((1,), dtype="int64", low=0, high=LONGEST)
    methods = {"prefill": trtpack.Method(prompt), "decode": trtpack.Method((token, at))}
    return Writer().eval(), methods


def written(
    prefill: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor, Tensor], Tensor],
    prompt: Tensor,
    count: int,
) -> list[int]:
    """The likeliest ``count`` tokens after a prompt, one by one."""
    token, found = prefill(prompt).argmax(-1, keepdim=True), []
    for step in range(count):
        found.append(int(token))
        place = torch.tensor([prompt.shape[1] + step], device=prompt.device)
        token = decode(token, place).argmax(-1, keepdim=True)
    return found


def main(target: str = "auto") -> None:
    model, methods = make_model()
    bundle = trtpack.build(model, methods, target=target, output="writer.tar")
    print(told(bundle))
    shared = " and ".join(bundle.report.methods)
    if bundle.report.bundle is not None:
        print(f"{bundle.report.bundle.weights_bytes / 1e3:.0f} kB of weights for {shared}")
    engine = loaded(bundle)
    for length in (3, 20):
        prompt = torch.randint(0, WORDS, (1, length))
        with torch.no_grad():
            wanted = written(model.prefill, model.decode, prompt, 16)
        engine.reset()
        got = written(engine.prefill, engine.decode, prompt.to(engine.device), 16)
        same = "as the model does" if got == wanted else f"but the model writes {wanted}"
        print(f"after {length} tokens it writes {got}, {same}")
    token = torch.tensor([[1]], device=engine.device)
    at = torch.tensor([40], device=engine.device)
    print(f"a token takes {median_ms(lambda: engine.decode(token, at)):.2f} ms {place(engine)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
