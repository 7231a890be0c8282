# SPDX-License-Identifier: Apache-2.0
"""Precisions, pins, budgets and drops as the command line writes them."""

from __future__ import annotations

from typing import Any

import pytest

from trtpack.accuracy.reading import check_budgets, parse_budget, parse_drop
from trtpack.errors import ConfigError
from trtpack.options import PRECISION_NAMES, Budget, Drop, Options, Pin, PrecisionName
from trtpack.precision.names import check_precision, parse_pin, parse_precision
from trtpack.target import find_target


def test_precisions_have_their_names() -> None:
    assert [parse_precision(name) for name in PRECISION_NAMES] == list(PRECISION_NAMES)
    assert parse_precision(None) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fp4", "SM 10.0 and later only"),
        ("half", "there is no precision 'half'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_reason(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_precision(name)


def test_pins_are_read_from_behind() -> None:
    assert parse_pin("head.*=fp32") == Pin("head.*", "fp32")
    assert parse_pin("a(?=b).*=fp16-fp32acc") == Pin("a(?=b).*", "fp16-fp32acc")
    assert str(parse_pin("aten.mul=bf16")) == "aten.mul=bf16"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("head", "bad pin 'head'"),
        ("=fp32", "bad pin '=fp32'"),
        ("he[ad=fp32", "is no regular expression"),
        ("head=int8", "cannot be pinned to 'int8'"),
        ("head=float32", "cannot be pinned to 'float32'"),
    ],
)
def test_bad_pins(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("[", r"\[")):
        parse_pin(text)


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("t4", {"precision": "bf16"}, "SM 7.5 has no bfloat16"),
        ("t4", {"precision": "tf32"}, "SM 7.5 has no TF32"),
        ("t4", {"pins": (Pin("head", "bf16"),)}, "--pin 'head=bf16' is not possible for t4"),
        ("orin@jetpack-6.0", {"precision": "mixed-bf16"}, "its TensorRT 8.6.2 has no bfloat16"),
        ("cpu", {"precision": "tf32"}, "how NVIDIA GPUs round products"),
        ("cpu", {"calibration_samples": 0}, "--calibration-samples is 0"),
        ("cpu", {"weight_block": 64}, "--weight-block is for --precision int4, int8-weights and"),
        ("cpu", {"precision": "fp16", "weight_block": 64}, "int8-weights and auto, not for fp16"),
        ("cpu", {"precision": "int8-weights", "weight_block": 0}, "--weight-block is 0"),
        ("cpu", {"calibrate_on": "cuda"}, "--calibrate-on cuda is for --precision int8, fp8 and"),
        (
            "cpu",
            {"precision": "int8", "calibrate": "data.py:loader", "calibrate_on": "cuda"},
            "needs a GPU that PyTorch can use",
        ),
    ],
)
def test_a_precision_that_a_target_lacks(
    target: str, options: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=told):
        check_precision(Options(targets=(target,), **options), [find_target(target)])


def test_a_precision_that_all_targets_have() -> None:
    targets = [find_target(name) for name in ("rtx-4090", "cpu")]
    for name in PRECISION_NAMES:
        data = "data.py:loader" if name in ("int8", "fp8") else None
        check_precision(Options(targets=(), precision=name, calibrate=data), targets)
    check_precision(Options(targets=(), precision="mixed"), [find_target("orin@jetpack-6.0")])
    in_blocks: tuple[tuple[PrecisionName, int], ...]
    in_blocks = (("int8-weights", 32), ("int4", 64), ("auto", 128))
    for name, block in in_blocks:
        check_precision(Options(targets=(), precision=name, weight_block=block), targets)


def test_budgets() -> None:
    assert parse_budget("cosine>=0.999") == Budget("cosine", 0.999)
    assert parse_budget("boxes[0]:rel_l2 <= 1e-2") == Budget("rel_l2", 0.01, "boxes[0]")
    assert str(parse_budget("logits:top1>=0.99")) == "logits:top1>=0.99"
    assert parse_drop("0.5%") == Drop(0.005, True)
    assert parse_drop("0.01") == Drop(0.01, False)
    assert parse_drop("100%") == Drop(1.0, True)
    assert parse_drop("500") == Drop(500.0, False)
    assert str(parse_drop("0.5%")) == "0.5%"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cosine", "bad budget"),
        ("cosine>0.9", "bad budget"),
        ("accuracy>=0.9", "bad budget"),
        ("cosine<=0.9", "cosine is to be at least so large"),
        ("rel_l2>=0.1", "rel_l2 is an error"),
        ("cosine>=1e", "'1e' is no number"),
        ("cosine>=1.01", "cosine is never above 1"),
        ("logits:top1>=99", "top1 is never above 1"),
        ("max_abs<=-0.1", "max_abs is never below 0"),
    ],
)
def test_bad_budgets(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_budget(text)


@pytest.mark.parametrize("text", ["", "much", "-1%", "inf", "nan", "5%%", "100.1%", "500%"])
def test_bad_drops(text: str) -> None:
    with pytest.raises(ConfigError, match="bad drop"):
        parse_drop(text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_drop": Drop(0.1, False)}, "--max-drop is without a metric"),
        ({"budgets": (Budget("metric", 0.7),)}, "'metric>=0.7' is without a metric"),
        ({"metric": "m.py:f"}, "nothing is held against the metric m.py:f"),
    ],
)
def test_budgets_that_say_nothing(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_budgets(Options(targets=(), **options))
