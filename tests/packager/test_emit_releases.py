# SPDX-License-Identifier: Apache-2.0
"""Whole models, converted for a target of every TensorRT release and emitted for that release."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.packager.converters.harness import bf16, f32, refusal
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import controls, double
from trtpack.capture import capture
from trtpack.convert import convert
from trtpack.lowering import Lowered, lower
from trtpack.partition import partition
from trtpack.sources.torchvision_ops import import_torchvision
from trtpack.target import find_target
from trtpack_runtime.engines._build import BuildOptions, build_plan

aten = torch.ops.aten
RELEASES = {
    "8.6": "orin@jetpack-6.0",
    "10.3": "orin@jetpack-6.2",
    "10.16": "orin@jetpack-7.2",
    "11.1": "l4@tensorrt-11.4",
}
"""A release and a target that has it; what 11.4 has besides is not of use to a network."""

BATCH, LENGTH = Dim("batch", min=1, max=16), Dim("length", min=2, max=64)


class Residual(nn.Module):
    """A block of a ResNet and its head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
        self.pool, self.head = nn.MaxPool2d(3, 2, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.pool(torch.relu(x + self.conv(x)))
        return self.head(x.mean((2, 3))).softmax(-1)


class Encoder(nn.Module):
    """Token and position embeddings and a layer of BERT, with a mask, and the likeliest token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50, 32), nn.Embedding(64, 32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.norm, self.vocabulary = nn.LayerNorm(32), nn.Linear(32, 50)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        n, length = ids.shape
        x = self.tokens(ids) + self.positions(torch.arange(length))
        q, k, v = (
            part.reshape(n, length, 4, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4).to(q.dtype)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(n, length, 32)))
        scores = self.vocabulary(nn.functional.gelu(x))
        return scores, scores.argmax(-1)


class Detector(nn.Module):
    """Two scales joined by nearest resizing, boxes decoded on a grid, the best of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Conv2d(16, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = nn.functional.silu(self.fine(x))
        up = nn.functional.interpolate(nn.functional.silu(self.coarse(fine)), scale_factor=2.0)
        boxes = self.head(torch.cat([fine, up], 1)).flatten(2).transpose(1, 2)
        scores, indices = boxes[..., 4:].sigmoid().amax(-1).topk(5, dim=1)
        return scores, boxes.gather(1, indices[..., None].expand(-1, -1, 6))


def _torchvision() -> Any:
    """torchvision as the packager imports it, whose compiled operators may not load."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed here")
    return import_torchvision()


def _resnet18() -> nn.Module:
    model: nn.Module = _torchvision().models.resnet18(weights=None)
    return model


def _bert() -> nn.Module:
    _torchvision()  # transformers imports it
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model: nn.Module = transformers.BertModel(config)
    return model


IDS = torch.ones(2, 8, dtype=torch.int64)
BOTH = {0: BATCH, 1: LENGTH}
MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...], Any]]] = {
    "residual": lambda: (Residual(), (torch.rand(2, 3, 32, 32),), None),
    "residual batch": lambda: (Residual(), (torch.rand(2, 3, 32, 32),), ({0: BATCH},)),
    "encoder half": lambda: (Encoder().half(), (IDS, IDS), (BOTH, BOTH)),
    "detector": lambda: (Detector(), (torch.rand(2, 3, 32, 32),), ({0: BATCH},)),
    "resnet18": lambda: (_resnet18().half(), (torch.rand(2, 3, 64, 64).half(),), ({0: BATCH},)),
    "bert": lambda: (_bert(), (IDS, IDS), (BOTH, BOTH)),
}


@cache
def lowered(name: str) -> Lowered:
    torch.manual_seed(0)
    model, inputs, dynamic = MODELS[name]()
    return lower(capture(model.eval(), inputs, dynamic_shapes=dynamic))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "bert")) for n in MODELS]
)
@pytest.mark.parametrize("release", RELEASES)
def test_a_model_becomes_an_engine(release: str, name: str) -> None:
    made, target, trt = lowered(name), find_target(RELEASES[release]), double(release)
    plan = partition(made.captured.graph_module, target)
    engines = [segment for segment in plan.segments if segment.kind == "tensorrt"]
    assert len(engines) == len(plan.segments) == 1, plan.refusals
    segment = convert(engines[0].graph_module, target, made.captured.ranges, made.recipes)
    weights = bytes_of(segment.constants)
    emitted(trt, segment.network, weights)
    build_plan(trt, segment.network, weights, BuildOptions())
    (record,) = controls(trt).built
    assert len(record["profiles"]) == (not segment.network.is_static)
    assert set(record["weights"]) <= set(segment.constants)
    places = [layer["metadata"] for layer in record["layers"] if layer.get("metadata")]
    assert len(places) > len(record["layers"]) // 3


def test_8_6_leaves_bfloat16_to_pytorch() -> None:
    old, new = RELEASES["8.6"], RELEASES["10.3"]
    assert refusal(aten.relu.default, bf16(2, 3), target=new) is None
    reason = "TensorRT has bfloat16 from 10.0 on"
    assert refusal(aten.relu.default, bf16(2, 3), target=old) == reason
    cast = refusal(aten._to_copy.default, f32(4), dtype=torch.bfloat16, target=old)
    assert cast == reason
