# SPDX-License-Identifier: Apache-2.0
"""What is tried next: each setting alone, then the sampler's, nothing twice, until all was."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from trtpack.errors import ConfigError
from trtpack.tuning.space import Setting, combinations
from trtpack.tuning.suggesting import check_optuna, suggest

SPACE = (
    Setting("freezing", False, (True,)),
    Setting("threads", None, (4, 2, 1)),
)


def walk(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The settings that are tried where freezing helps and threads fail."""
    tried: list[tuple[dict[str, Any], float | None]] = [({}, 1.0)]
    for _ in range(count):
        settings = suggest(SPACE, tried, seed)
        if settings is None:
            break
        time = None if "threads" in settings else 0.5
        tried.append((settings, time))
    return [settings for settings, _ in tried]


def test_each_setting_alone_comes_first() -> None:
    assert walk(2) == [{}, {"freezing": True}, {"threads": 4}]


def test_everything_is_tried_once_and_then_nothing() -> None:
    walked = walk(100)
    every = list(combinations(SPACE))
    assert len(walked) == len(every) == 8
    assert all(settings in walked for settings in every)


def test_a_search_that_is_taken_up_again_goes_on_as_it_would_have() -> None:
    assert walk(5)[:6] == walk(7)[:6]


def test_what_another_release_tried_does_no_harm() -> None:
    tried = [({}, 1.0), ({"threads": 77}, 0.1), ({"freezing": True}, 0.9), ({"threads": 4}, 0.8)]
    assert suggest(SPACE, tried, 0) in list(combinations(SPACE))


def test_without_optuna_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught:
        check_optuna()
    assert caught.value.hint == "pip install 'trtpack[tune]'"
