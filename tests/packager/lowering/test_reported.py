# SPDX-License-Identifier: Apache-2.0
"""Every pass tells what it did, in the terminal and in the JSON report."""

from __future__ import annotations

import json

import torch
from torch import nn

from trtpack import pipeline
from trtpack.lowering import PASSES
from trtpack.options import DynamicDim, InputSpec, Options, SizeRange
from trtpack.report.text import render


class Varied(nn.Module):
    """Something for every pass, and a float64 table."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.weight = nn.Parameter(torch.rand(8))

    def forward(self, image: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        kernel = self.convolution.weight * scale.reshape(-1, 1, 1, 1)
        trained = nn.functional.conv2d(image, kernel, padding=1) / scale.reshape(1, -1, 1, 1)
        image = self.norm(self.convolution(nn.functional.pad(image, (1, 1, 1, 1))))
        image = image + self.norm(trained)
        image = image.flatten(1).unflatten(1, (4, -1)).permute(0, 2, 1).permute(0, 2, 1)
        image = torch.fake_quantize_per_tensor_affine(image, 0.1, 0, -128, 127)
        x = nn.functional.dropout(x, 0.5, self.training).view(x.shape[0], 4, 8)
        spread = x.var(-1, keepdim=True, correction=0)
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(spread + 1e-5)
        x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight
        query, key = self.query(x), self.key(x)
        angle = torch.arange(4.0)[:, None] * torch.arange(4.0)
        first, second = query.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        query = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        x = (query @ key.mT / 2).softmax(-1) @ x
        x = x.masked_fill(torch.zeros(4, 8, dtype=torch.bool), -1.0) * 2.0 * 3.0
        x = torch.exp(x + 1) - torch.exp(x + 1) * x.shape[0]
        return image, x * torch.sigmoid(x) + (x.double() * 2).float()


def test_every_pass_shows_its_effect() -> None:
    inputs = (
        InputSpec("image", (1, 2, 5, 5)),
        InputSpec("x", (DynamicDim(SizeRange(1, 2, 4)), 4, 8)),
    )
    options = Options(targets=("rtx-4090",), precision="mixed", dry_run=True, inputs=inputs)
    report = pipeline.build(Varied().eval(), options)
    told = json.loads(report.to_json_text())["passes"]
    assert list(report.passes) == [rewrite.__name__ for rewrite in PASSES]
    assert told == dict(report.passes)
    idle = {name for name, count in told.items() if not count}
    assert idle == {"prune", "quantize"}, "not asked for; all else has something to do"
    text = " ".join(render(report).split())
    for name, count in told.items():
        assert not count or f"{name} {count}" in text
