# SPDX-License-Identifier: Apache-2.0
"""The command line and Python say the same: every flag of ``trtpack build`` is one option."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import pytest

from trtpack.api.setting_values import ABOVE_ZERO, BOUNDS
from trtpack.api.settings import settled
from trtpack.cli.build import build
from trtpack.cli.matrix import CommandFlags
from trtpack.cli.matrix_options import NAMES as MATRIX
from trtpack.options import Options

FIELDS = [field.name for field in dataclasses.fields(Options)]
PRESENTATION = {"verbose", "quiet", "log_file", "gpu", *MATRIX}
"""What a build says, where its own GPU is chosen, and what is not one build."""
RENAMED = {"workspace": "workspace_bytes", "meta": "metadata"}
TEXTS = {
    "targets": "orin",
    "inputs": "x=1/4/8x3:float16",
    "precision": "mixed",
    "pins": "head.*=fp32",
    "budgets": "logits:cosine>=0.99",
    "max_drop": "0.5%",
    "profiles": "x=8x3",
    "workspace": "4G",
    "torch_ops": "aten.add",
    "on": "ssh://user@orin",
}
"""What a flag is given that does not take any text."""
FILES = {"weights": b"", "tactics": b"", "meta": b'{"labels": ["cat"]}'}
OPTIONS = {
    option.name: option
    for option in build.params
    if isinstance(option, click.Option) and option.name not in PRESENTATION
}


def test_every_flag_is_one_option() -> None:
    assert sorted(RENAMED.get(name, name) for name in OPTIONS) == sorted(FIELDS)


def test_both_begin_with_the_same() -> None:
    assert CommandFlags().parsed(["-t", "cpu"]) == settled(None, target="cpu")


def given(option: click.Option, folder: Path) -> Any:
    """Something else than the flag's default."""
    kind, name = option.type, str(option.name)
    if option.is_flag:
        return option.default is not True
    if isinstance(kind, click.Choice):
        return next(choice for choice in kind.choices if choice != option.default)
    if isinstance(kind, click.IntRange | click.FloatRange):
        return kind.convert((kind.min or 0) + 2, None, None)
    if name in FILES:
        (folder / name).write_bytes(FILES[name])
        return str(folder / name)
    if kind in (click.INT, click.FLOAT):
        return kind.convert(7, None, None)
    return TEXTS.get(name, f"{name}.other")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_flag_says_what_its_option_does(name: str, tmp_path: Path) -> None:
    option, field = OPTIONS[name], RENAMED.get(name, name)
    value = given(option, tmp_path)
    flag = max(option.opts, key=len)
    words = [flag] if option.is_flag else [f"{flag}={value}"]
    said = CommandFlags().parsed([*words, *([] if name == "targets" else ["-t", "orin"])])
    base = Options(targets=("orin",))
    changed = {f for f in FIELDS if getattr(said, f) != getattr(base, f)}
    assert changed == {field} - {"targets"}
    if name == "meta":
        value = {"labels": ["cat"]}
    assert settled({"targets": "orin", field: value}) == said


def test_numbers_have_the_same_bounds() -> None:
    ranges = {
        RENAMED.get(name, name): option.type
        for name, option in OPTIONS.items()
        if isinstance(option.type, click.IntRange | click.FloatRange)
    }
    above = {name for name, kind in ranges.items() if kind.min_open}
    bounds = {name: (kind.min, kind.max) for name, kind in ranges.items() if name not in above}
    assert above == ABOVE_ZERO
    assert bounds == {name: BOUNDS[name] for name in bounds}
    assert not ({*BOUNDS, *ABOVE_ZERO} - {*FIELDS})
