# SPDX-License-Identifier: Apache-2.0
"""A hybrid: what TensorRT has not runs in PyTorch, between engines, as one module.

python docs/examples/divide_a_model.py [TARGET]
"""

from __future__ import annotations

import sys

import torch
from compare import difference, loaded, median_ms, place, told
from torch import Tensor, nn

import trtpack


class Whitened(nn.Module):
    """Features of an image, whitened over its batch: that needs eigenvectors."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, padding=1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 16),
        )  # fmt: skip
        self.after = nn.Sequential(nn.Linear(16, 512), nn.GELU(), nn.Linear(512, 10))

    def forward(self, image: Tensor) -> Tensor:
        x = self.before(image)
        x = x - x.mean(0)
        values, vectors = torch.linalg.eigh(x.T @ x / x.shape[0] + 0.1 * torch.eye(16))
        return self.after(x @ (vectors * values.rsqrt()) @ vectors.T)


def make_model() -> tuple[nn.Module, Tensor]:
    """The model with random weights, and images."""
    torch.manual_seed(0)
    return Whitened().eval(), torch.randn(32, 3, 64, 64)


def main(target: str = "orin") -> None:
    model, images = make_model()
    bundle = trtpack.build(model, (images,), target=target, output="whitened.tar")
    print(told(bundle))
    (report,) = bundle.report.targets
    for segment in report.segments:
        sizes = ", ".join(value.shape_text for value in segment.inputs)
        operators = "1 operator" if segment.count == 1 else f"{segment.count} operators"
        print(f"  {segment.name}: {segment.kind}, {operators} on ({sizes})")
    for refused in report.refused[:3]:
        print(f"  {refused.op} stays in PyTorch: {refused.reason}")
    engine = loaded(bundle)
    with torch.no_grad():
        wanted = model(images)
    there = images.to(engine.device)
    print(
        f"{difference(engine(there), wanted):.1e} from PyTorch, "
        f"{median_ms(lambda: engine(there)):.2f} ms {place(engine)}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
