# SPDX-License-Identifier: Apache-2.0
"""A classifier: any batch from 1 to 8, with its labels and preprocessing in the bundle.

python docs/examples/classify_images.py [TARGET]
"""

from __future__ import annotations

import sys

import torch
from compare import difference, loaded, median_ms, place, told
from torch import Tensor, nn

import trtpack

LABELS = ("cat", "dog", "horse", "bird", "fish")


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
        self.around = nn.Conv2d(channels, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(y)) + self.around(x)).relu()


def make_model() -> nn.Module:
    """A small residual network with random weights."""
    torch.manual_seed(0)
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, len(LABELS)),
    ).eval()


def main(target: str = "auto") -> None:
    model = make_model()
    images = trtpack.Input(
        min_shape=(1, 3, 64, 64), opt_shape=(4, 3, 64, 64), max_shape=(8, 3, 64, 64), name="input"
    )
    bundle = trtpack.build(
        model,
        [images],
        target=target,
        output="classifier.tar",
        metadata={"labels": list(LABELS), "preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3}},
    )
    print(told(bundle))
    engine = loaded(bundle)
    labels = engine.bundle.manifest.metadata["labels"]
    for batch in (1, 8):
        x = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            wanted = model(x)
        got = engine(x.to(engine.device))
        print(
            f"batch {batch}: the first is a {labels[int(got[0].argmax())]}, "
            f"{difference(got, wanted):.1e} from PyTorch"
        )
    x = torch.randn(8, 3, 64, 64)
    there = x.to(engine.device)
    with torch.no_grad():
        ours, theirs = median_ms(lambda: engine(there)), median_ms(lambda: model(x))
    print(f"8 images take {ours:.2f} ms {place(engine)}; {theirs:.2f} ms by the model on the CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
