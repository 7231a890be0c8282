# SPDX-License-Identifier: Apache-2.0
"""Real architectures, from source to bundle: one TensorRT segment, a real engine, right numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.zoo import MODELS
from trtpack.inputs import parse_inputs
from trtpack.livening import check_alive, liven
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress

pytestmark = pytest.mark.slow

TORCHVISION = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "vgg16",
    "squeezenet1_1",
    "densenet121",
    "shufflenet_v2_x1_0",
    "vit_b_16",
    "swin_t",
    "convnext_tiny",
)
TIMM = ("efficientnet_b0", "vit_small_patch16_224")
TRANSFORMERS = {
    "bert": {"model_type": "bert", "architectures": ["BertModel"]},
    "distilbert": {"model_type": "distilbert", "architectures": ["DistilBertModel"]},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "use_cache": False},
}
ZOO = ("whisper_tiny_encoder", "yolov8n_like")

SOURCES = [
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *(f"hf:{name}" for name in TRANSFORMERS),
    *(f"zoo:{name}" for name in ZOO),
]
DYNAMIC = {
    "torchvision:resnet18": ["1/4/8x3x224x224"],
    "torchvision:mobilenet_v2": ["1/4/8x3x224x224"],
    "torchvision:vit_b_16": ["1/4/8x3x224x224"],
    "hf:bert": [
        "input_ids=[batch=1/4/8]x[tokens=2/32/128]:int64[0,30000]",
        "attention_mask=[batch=1/4/8]x[tokens=2/32/128]:int64[0,2]",
    ],
}


def model(source: str, folder: Path) -> Any:
    kind, _, name = source.partition(":")
    if kind == "zoo":
        module, args, _ = MODELS[name]()
        return module, args
    if kind == "hf":
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(TRANSFORMERS[name]))
        return f"hf:{folder / name}"
    return source


def built(source: str, folder: Path, **options: Any) -> BuildReport:
    chosen = Options(
        targets=("rtx-4090",),
        output=folder / "bundle.tar",
        liven=True,
        **options,
    )
    return build(model(source, folder), chosen, Progress())


def assert_whole_and_right(report: BuildReport, dtype: str) -> None:
    (target,) = report.targets
    assert [segment.kind for segment in target.segments] == ["tensorrt"]
    assert target.refused == ()
    assert not target.unsupported
    (engine,) = target.engines
    assert engine.kind == "tensorrt-rtx"
    assert engine.nbytes > 0
    floats = [a for a in target.agreement if a.rel_l2 is not None and a.cosine is not None]
    assert floats
    for output in floats:
        assert output.failure is None
        if dtype == "float32":
            assert output.rel_l2 <= 1e-4
        else:
            assert output.cosine >= 0.999


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("source", SOURCES)
def test_one_engine_with_the_models_numbers(source: str, dtype: str, tmp_path: Path) -> None:
    assert_whole_and_right(built(source, tmp_path, dtype=dtype), dtype)


@pytest.mark.parametrize("source", DYNAMIC)
def test_dynamic_shapes_are_one_engine_too(source: str, tmp_path: Path) -> None:
    inputs = parse_inputs(DYNAMIC[source])
    report = built(source, tmp_path, inputs=inputs, samples=3)
    assert_whole_and_right(report, "float32")
    assert any("/" in str(size) for value in report.inputs for size in value.shape)


@pytest.mark.parametrize("name", ZOO)
def test_the_judged_models_are_alive(name: str) -> None:
    module, args, _ = MODELS[name]()
    assert isinstance(module, nn.Module)
    liven(module, args)
    assert check_alive(module, args, 1e-4) >= 1e-2
