# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/divide-a-model.md says, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pages import walk
from trtpack.cli.partition_options import measure_option, partition_options

PAGE = (Path(__file__).parents[1] / "docs/how-to/divide-a-model.md").read_text("utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert walk(PAGE) == 3


def test_every_flag_is_on_the_page() -> None:
    decorated: Any = measure_option(partition_options(lambda: None))
    for option in decorated.__click_params__:
        assert f"`{option.opts[0]}" in PAGE
