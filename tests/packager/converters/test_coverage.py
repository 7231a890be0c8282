# SPDX-License-Identifier: Apache-2.0
"""Nothing is in the library without a test: operators have cases, passes are named by tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.packager.converters.harness import ON_GPU_ONLY
from tests.proving.collecting import collect
from trtpack.converters import load, registered, registry
from trtpack.converters.context import Context
from trtpack.converters.registry import Converter, converter
from trtpack.lowering import PASSES
from trtpack_runtime.network import Tensor

_TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """The operators that have a case, or whose refusal, which is all they have, is held."""
    found = {case.op.name() for _, case in collect({})}
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    refused = re.findall(r"refusal\(\s*aten\.(\w+)\.(\w+),", text)
    return (
        ON_GPU_ONLY
        | found
        | {f"aten::{name}.{overload}".removesuffix(".default") for name, overload in refused}
    )


def test_every_operator_has_a_case(tested: set[str]) -> None:
    load()
    assert _without_case(registered(), tested) == []


def test_an_operator_without_a_case_is_found(
    tested: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def untried(ctx: Context, self: Tensor) -> Tensor:
        return self

    untried.__module__ = "trtpack.converters.untried"
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    converter("aten::frexp.Tensor")(untried)
    assert _without_case(registered(), tested) == ["aten::frexp.Tensor"]


@pytest.mark.parametrize("name", [rewrite.__name__ for rewrite in PASSES])
def test_every_pass_is_named_by_a_test_of_lowering(name: str) -> None:
    folders = (_TESTS / part for part in ("lowering", "precision", "calibration"))
    tests = [path for folder in folders for path in folder.glob("test_*.py")]
    assert any(name in path.read_text() for path in tests)


def _without_case(library: Iterable[Converter], tested: set[str]) -> list[str]:
    ours = (c for c in library if c.function.__module__.startswith("trtpack."))
    return sorted(c.name for c in ours if c.name not in tested)
