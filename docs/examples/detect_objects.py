# SPDX-License-Identifier: Apache-2.0
"""A detector with its non-maximum suppression: how many boxes it answers, only the image tells.

    python docs/examples/detect_objects.py [TARGET]

TensorRT has such a layer, TensorRT-RTX has none: try orin and rtx-4090.
"""

from __future__ import annotations

import itertools
import sys

import torch
from compare import loaded, place, told
from torch import Tensor, nn

import trtpack
from trtpack.sources.torchvision_ops import import_torchvision

batched_nms = import_torchvision().ops.batched_nms  # also where torchvision's own do not load
SIDE, STRIDE, KINDS = 64, 8, 3


class Detector(nn.Module):
    """A box, a score and a kind for each of 8x8 cells; of those that overlap the best stays."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        layers: list[nn.Module] = []
        for low, high in itertools.pairwise(widths):
            layers += [nn.Conv2d(low, high, 3, 2, padding=1), nn.BatchNorm2d(high), nn.SiLU()]
        self.backbone = nn.Sequential(*layers)
        self.boxes, self.scores = nn.Conv2d(64, 4, 1), nn.Conv2d(64, KINDS, 1)
        at = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        self.register_buffer("centres", torch.stack([columns, rows], -1).reshape(-1, 2))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = self.backbone(image)
        sizes = self.boxes(found)[0].flatten(1).T.exp().clamp(max=4) * 2 * STRIDE
        centres = self.get_buffer("centres")
        boxes = torch.cat([centres - sizes[:, :2], centres + sizes[:, 2:]], 1)
        scores, kinds = self.scores(found)[0].flatten(1).T.sigmoid().max(1)
        kept = batched_nms(boxes, scores, kinds, 0.5)
        return {"boxes": boxes[kept], "scores": scores[kept], "kinds": kinds[kept]}


def make_model() -> tuple[nn.Module, Tensor]:
    """The detector with random weights, and an image."""
    torch.manual_seed(0)
    return Detector().eval(), torch.randn(1, 3, SIDE, SIDE)


def main(target: str = "auto") -> None:
    model, image = make_model()
    bundle = trtpack.build(model, (image,), target=target, output="detector.tar")
    print(told(bundle))
    engine = loaded(bundle)
    for seed in (1, 2):
        image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            wanted = model(image)
        got = engine(image.to(engine.device))
        same = torch.equal(got["kinds"].cpu(), wanted["kinds"])
        off = float((got["boxes"].cpu() - wanted["boxes"]).abs().max()) if same else float("nan")
        print(
            f"image {seed}: {len(got['boxes'])} of {(SIDE // STRIDE) ** 2} boxes stay, the model "
            f"keeps {len(wanted['boxes'])}; they are {off:.1e} pixels apart, {place(engine)}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
