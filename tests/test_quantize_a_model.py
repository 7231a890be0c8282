# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/quantize-a-model.md says, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import walk
from trtpack.options import OBSERVER_NAMES

PAGE = (Path(__file__).parents[1] / "docs/how-to/quantize-a-model.md").read_text("utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert walk(PAGE) == 5


def test_every_observer_is_on_the_page() -> None:
    for name in OBSERVER_NAMES:
        assert f"`{name}`" in PAGE
