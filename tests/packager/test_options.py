# SPDX-License-Identifier: Apache-2.0
"""Options are values: equal, hashable, and only some of them matter to an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trtpack import Options
from trtpack.inputs import parse_inputs


def options(**changes: object) -> Options:
    return dataclasses.replace(Options(targets=("cpu",)), **changes)  # type: ignore[arg-type]


def test_equal_settings_are_equal_and_hash_alike() -> None:
    first = options(inputs=parse_inputs(["x=1/4/8x3"]), metadata={"labels": ["a"]})
    second = options(inputs=parse_inputs(["x=1/4/8x3"]), metadata={"labels": ["a"]})
    assert first == second
    assert hash(first) == hash(second)
    assert first != options(inputs=parse_inputs(["x=1/4/9x3"]), metadata={"labels": ["a"]})


def test_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("change", [{"workspace_bytes": 1 << 30}, {"optimization_level": 5}])
def test_what_changes_an_engine_changes_its_settings(change: dict[str, object]) -> None:
    assert options(**change).engine_settings() != options().engine_settings()


@pytest.mark.parametrize(
    "change",
    [{"output": Path("b.tar")}, {"report": Path("r.json")}, {"dry_run": True}, {"samples": 3}],
)
def test_what_an_engine_does_not_depend_on_leaves_them(change: dict[str, object]) -> None:
    assert options(**change).engine_settings() == options().engine_settings()
