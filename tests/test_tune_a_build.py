# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/tune-a-build.md says, in an empty folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.pages import walk
from trtpack.options import OPTIMIZE_NAMES, Budget, Options
from trtpack.target import find_target
from trtpack.tuning.space import flags, space

PAGE = (Path(__file__).parents[1] / "docs/how-to/tune-a-build.md").read_text("utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert walk(PAGE) == 1


def test_every_setting_that_is_tried_is_on_the_page() -> None:
    options = Options(targets=("cpu",), budgets=(Budget("cosine", 0.9),), calibrate="d.py:loader")
    for name in ("cpu", "rtx-4090"):
        for setting in space(replace(options, targets=(name,)), find_target(name), 8):
            assert f"`{flags({setting.name: True})}`" in PAGE
            if setting.name == "precision":
                assert all(f"`{value}`" in PAGE for value in setting.others)
    for name in OPTIMIZE_NAMES[1:]:
        assert f"--optimize {name}" in PAGE
