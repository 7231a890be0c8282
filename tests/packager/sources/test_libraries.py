# SPDX-License-Identifier: Apache-2.0
"""torchvision, timm and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from .loading import load, refused


def test_torchvision_knows_size_and_preprocessing() -> None:
    source = load("torchvision:squeezenet1_1")
    assert source.args[0].shape == (1, 3, 224, 224)
    assert source.random
    assert any("random weights" in note for note in source.notes)
    assert source.metadata["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert source.run((source.args, source.kwargs)).shape == (1, 1000)
    assert "did you mean torchvision:resnet18?" in refused("torchvision:resnet81").hint
    assert "(model, inputs)" in refused("torchvision:fasterrcnn_resnet50_fpn").hint


def test_timm_knows_size_and_preprocessing() -> None:
    source = load("timm:mobilenetv3_small_050", "x=1/2/4x3x96x96")
    assert source.kwargs["x"].shape == (2, 3, 96, 96)
    assert source.metadata["preprocess"]["crop"] == [224, 224]
    assert "did you mean timm:vit_small" in refused("timm:vit_smal").hint
    assert "did you mean timm:vit_small" in refused("timm:vit_smalll").hint


def hf_folder(path: Path, config: Any) -> Path:
    path.mkdir()
    config.save_pretrained(path)
    return path


def bert(path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        architectures=["BertForSequenceClassification"],
        id2label={0: "bad", 1: "good"},
    )
    return hf_folder(path, config)


def test_a_folder_without_weights_gives_random_ones(tmp_path: Path) -> None:
    source = load(f"hf:{bert(tmp_path / 'bert')}")
    assert (source.name, type(source.module).__name__) == ("bert", "BertForSequenceClassification")
    assert source.random
    assert "no weights in the folder" in source.notes[0]
    assert source.metadata == {"labels": ["bad", "good"]}
    assert source.kwargs["input_ids"].shape == (1, 32)
    assert int(source.kwargs["input_ids"].max()) < 99
    assert source.kwargs["attention_mask"].eq(1).all()
    assert source.run((source.args, source.kwargs)).logits.shape == (1, 2)


def test_a_folder_with_weights_loads_them(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    before = load(f"hf:{folder}", seed=3)
    before.module.save_pretrained(folder)  # type: ignore[operator]  # a model of transformers
    after = load(f"hf:{folder}", seed=4)
    assert not after.random
    for name, value in after.module.state_dict().items():
        assert torch.equal(value, before.module.state_dict()[name]), name


def test_shapes_given_for_text_keep_its_type_and_vocabulary(tmp_path: Path) -> None:
    sequence = "1/2/4x8/16/32"
    source = load(
        f"hf:{bert(tmp_path / 'bert')}", f"input_ids={sequence}", f"attention_mask={sequence}"
    )
    ids = source.kwargs["input_ids"]
    assert (ids.dtype, ids.shape) == (torch.int64, (2, 16))
    assert int(ids.max()) < 99
    exported = torch.export.export(
        source.module,
        source.args,
        source.kwargs,
        dynamic_shapes=source.dynamic_shapes,
        strict=False,
    )
    assert len(exported.range_constraints) == 2


def test_other_modalities_have_inputs_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    whisper = transformers.WhisperConfig(
        vocab_size=50,
        num_mel_bins=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        architectures=["WhisperModel"],
    )
    source = load(f"hf:{hf_folder(tmp_path / 'whisper', whisper)}")
    assert source.kwargs["input_features"].shape == (1, 8, 20)
    source.run((source.args, source.kwargs))
    vit = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        architectures=["ViTModel"],
    )
    source = load(f"hf:{hf_folder(tmp_path / 'vit', vit)}")
    assert source.kwargs["pixel_values"].shape == (1, 3, 32, 32)
    source.run((source.args, source.kwargs))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot read"),
        ({"a": 1}, "has no model_type"),
        ({"model_type": "bert", "architectures": ["BertModle"]}, "has no architecture BertModle"),
        ({"model_type": "no_such_type"}, "transformers cannot build"),
    ],
)
def test_says_what_is_wrong_with_a_folder(tmp_path: Path, config: Any, message: str) -> None:
    pytest.importorskip("transformers")
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    assert message in refused(f"hf:{tmp_path}").message


def test_pickled_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    torch.save({}, folder / "pytorch_model.bin")
    assert "has only pickled weights" in refused(f"hf:{folder}").message
