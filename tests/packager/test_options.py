# SPDX-License-Identifier: Apache-2.0
"""Options are values: equal and hashable."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trtpack import Options
from trtpack.inputs import parse_inputs


def options(**changes: Any) -> Options:
    return dataclasses.replace(Options(targets=("cpu",)), **changes)


def test_equal_settings_are_equal_and_hash_alike() -> None:
    first = options(inputs=parse_inputs(["x=1/4/8x3"]), metadata={"labels": ["a"]})
    second = options(inputs=parse_inputs(["x=1/4/8x3"]), metadata={"labels": ["a"]})
    assert first == second
    assert hash(first) == hash(second)
    assert first != options(inputs=parse_inputs(["x=1/4/9x3"]), metadata={"labels": ["a"]})


def test_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().seed = 1  # type: ignore[misc]  # frozen, as is tested
