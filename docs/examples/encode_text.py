# SPDX-License-Identifier: Apache-2.0
"""A transformer for texts of any length up to 128 tokens, from one engine.

python docs/examples/encode_text.py [TARGET]
"""

from __future__ import annotations

import sys

import torch
from compare import difference, loaded, median_ms, place, told
from torch import Tensor, nn

import trtpack

WORDS, WIDTH, HEADS, LONGEST = 500, 64, 4, 128


class Encoder(nn.Module):
    """Two layers of attention; answers one vector a text, from the tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        x = self.layers(x, src_key_padding_mask=~mask)
        weight = mask[:, :, None].float()
        return (x * weight).sum(1) / weight.sum(1)


def make_model() -> nn.Module:
    """The encoder with random weights."""
    torch.manual_seed(0)
    return Encoder().eval()


def main(target: str = "auto") -> None:
    model = make_model()
    length = (2, 32, LONGEST)
    inputs = {
        "tokens": trtpack.Input((2, length), dtype="int64", low=0, high=WORDS),
        "mask": trtpack.Input((2, length), dtype="bool", low=1, high=2),
    }
    bundle = trtpack.build(model, inputs, target=target, output="encoder.tar")
    print(told(bundle))
    engine = loaded(bundle)
    for length_now in (5, 40, LONGEST):
        tokens = torch.randint(0, WORDS, (2, length_now))
        mask = torch.arange(length_now) < torch.tensor([[length_now], [length_now // 2]])
        with torch.no_grad():
            wanted = model(tokens, mask)
        call = {"tokens": tokens.to(engine.device), "mask": mask.to(engine.device)}
        print(
            f"{length_now:>4} tokens: {difference(engine(**call), wanted):.1e} from PyTorch, "
            f"{median_ms(lambda call=call: engine(**call)):.2f} ms {place(engine)}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
