# SPDX-License-Identifier: Apache-2.0
"""The rows of the acceptance table: real architectures with the inputs they are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...]]
IMAGE = (3, 224, 224)


@dataclass(frozen=True)
class Row:
    """One model at one batch size; ``make`` gives the module and its example inputs (float32).

    ``kind`` is ``latency``, ``dynamic`` (one engine for batch 1 to 32), ``caches`` (build times),
    ``int8`` (beside float16) or ``sparse`` (beside dense).
    ``images`` says whether eager is also measured in channels-last.
    """

    name: str
    shape: str
    make: Callable[[], Made]
    images: bool = False
    kind: str = "latency"


def _image(architecture: str, batch: int) -> Callable[[], Made]:
    def make() -> Made:
        from trtpack.sources.torchvision_ops import import_torchvision

        module = import_torchvision().models.get_model(architecture, weights=None)
        return module, (torch.randn(batch, *IMAGE),)

    return make


def _bert(batch: int, tokens: int) -> Callable[[], Made]:
    def make() -> Made:
        from transformers import BertConfig, BertModel

        from tests.zoo.registry import Pick

        ids = torch.randint(0, 30000, (batch, tokens))
        module = Pick(BertModel(BertConfig()), ["input_ids", "attention_mask"])
        return module, (ids, torch.ones_like(ids))

    return make


def _gpt2(batch: int, tokens: int) -> Callable[[], Made]:
    def make() -> Made:
        from transformers import GPT2Config, GPT2LMHeadModel

        from tests.zoo.registry import Pick

        model = GPT2LMHeadModel(GPT2Config(use_cache=False))
        module = Pick(model, ["input_ids"], ["logits"])
        return module, (torch.randint(0, 50000, (batch, tokens)),)

    return make


def _detector() -> Made:
    from tests.zoo import MODELS

    module, _, _ = MODELS["yolov8n_like"]()
    return module, (torch.randn(1, 3, 640, 640),)


def _whisper_encoder() -> Made:
    from tests.zoo import MODELS

    module, (features,), _ = MODELS["whisper_tiny_encoder"]()
    return module, (features[:1],)


ROWS = [
    *(
        Row(f"{name}/{batch}", f"{batch}x3x224x224", _image(name, batch), images=True)
        for name, batch in (
            ("resnet18", 1),
            ("resnet18", 128),
            ("resnet50", 1),
            ("resnet50", 32),
            ("mobilenet_v3_large", 1),
            ("efficientnet_b0", 1),
            ("vit_b_16", 1),
            ("vit_b_16", 8),
            ("swin_t", 1),
        )
    ),
    Row("bert_base/1x128", "1x128", _bert(1, 128)),
    Row("bert_base/8x128", "8x128", _bert(8, 128)),
    Row("gpt2/1x64", "1x64", _gpt2(1, 64)),
    Row("yolov8n_like/1", "1x3x640x640", _detector, images=True),
    Row("whisper_tiny_encoder/1", "1x80x3000", _whisper_encoder),
    Row("resnet18/1..32", "1..32x3x224x224", _image("resnet18", 8), kind="dynamic"),
    Row("resnet50 builds", "1x3x224x224", _image("resnet50", 1), kind="caches"),
    Row("resnet50/32 int8", "32x3x224x224", _image("resnet50", 32), kind="int8"),
    Row("resnet50/32 sparse", "32x3x224x224", _image("resnet50", 32), kind="sparse"),
]
