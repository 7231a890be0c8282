# SPDX-License-Identifier: Apache-2.0
"""Every row of docs/how-to/come-from-torch-tensorrt.md holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import trtpack
from trtpack.api import torch_tensorrt
from trtpack.api.settings import settled

PAGE = (Path(__file__).parents[1] / "docs/how-to/come-from-torch-tensorrt.md").read_text("utf-8")
SETTINGS = PAGE.partition("## Settings")[2].replace(r"\|", "¦")
ROWS = re.findall(r"^\| `(\w+=.*?)` \| (?:`(.*?)`)?[^`]*\|$", SETTINGS, re.MULTILINE)


def named(text: str) -> dict[str, Any]:
    """The keyword arguments of a call."""
    found: dict[str, Any] = eval(f"dict({text.replace('¦', '|')})", {"torch": torch})
    return found


@pytest.mark.filterwarnings("ignore::trtpack.api.torch_tensorrt.SettingWarning")
@pytest.mark.parametrize(("setting", "option"), ROWS, ids=[row[0] for row in ROWS])
def test_a_setting_means_its_option(
    setting: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timing.cache").touch()
    assert settled(named(setting), target="cpu") == settled(named(option), target="cpu")


def test_every_setting_that_means_an_option_is_on_the_page() -> None:
    shown = {name for setting, _ in ROWS for name in named(setting)}
    same = {"min_block_size", "optimization_level", "version_compatible"}
    assert shown == same | torch_tensorrt._SAME.keys()
    assert all(f"`{name}`" in PAGE for name in torch_tensorrt._NOT_NEEDED)


def test_the_names_of_the_page_are_there() -> None:
    for name in set(re.findall(r"`trtpack\.(\w+)", PAGE)):
        assert getattr(trtpack, name) is not None
