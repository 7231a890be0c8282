# SPDX-License-Identifier: Apache-2.0
"""``trtpack ops``: every operator that models need is converted, or its refusal has a reason."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trtpack import coverage
from trtpack.cli.ops import ops
from trtpack.errors import ConfigError
from trtpack.lowering import PASSES
from trtpack.target import find_target

ROOT = Path(__file__).parents[2]
ROWS = {row.name: row for row in coverage.table()}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(ops, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def in_the_zoo() -> set[str]:
    stored = json.loads((ROOT / "tests/zoo/ops.json").read_text("utf-8"))
    named = {
        name
        for model in stored["models"].values()
        for way in ("static", "dynamic")
        for stage in ("before", "after")
        for name in (model.get(way) or {}).get(stage) or ()
    }
    pairs = (name.removeprefix("aten.").split(".") for name in named if name.startswith("aten."))
    return {f"aten::{op}" + f".{overload}" * (overload != "default") for op, overload in pairs}


def test_every_core_operator_and_every_one_of_the_zoo_is_accounted_for() -> None:
    wanted = {*coverage.core(), *in_the_zoo()}
    assert len(wanted) > 250
    found = {name: coverage.row(name) for name in wanted}
    assert sorted(name for name, row in found.items() if row is None) == []
    for row in filter(None, found.values()):
        assert row.how == "converter" or row.detail, row
        if row.how == "refused":
            assert len(row.detail.split()) >= 5, f"{row.name}: a reason, not {row.detail!r}"


def test_passes_are_those_of_lowering() -> None:
    assert set(coverage.PASSES.values()) <= {rewrite.__name__ for rewrite in PASSES}


def test_a_pattern_and_a_target_choose() -> None:
    shown = run("^aten::cumsum$")
    assert shown.splitlines()[1].startswith("aten::cumsum  converter  f32 ")
    assert shown.splitlines()[-1] == "1 operators"
    assert run("no such operator") == "0 operators\n"
    with pytest.raises(ConfigError, match="no regular expression"):
        run("aten::(")


def test_a_target_has_what_its_tensorrt_has() -> None:
    late = [row for row in ROWS.values() if row.since not in ("", "8.6")]
    old = {row.name for row in coverage.table("", find_target("orin@jetpack-6.0"))}
    assert old.isdisjoint(row.name for row in late)
    assert {row.how for row in ROWS.values() if row.name not in old} <= {"converter", "refused"}


def test_json_has_every_fact() -> None:
    rows = {row["name"]: row for row in json.loads(run("--json"))}
    assert set(rows) == set(ROWS)
    assert rows["aten::relu"]["dtypes"][:3] == ["float32", "float16", "bfloat16"]
    assert rows["aten::relu"]["since"] == "8.6"
    assert rows["aten::rand"]["how"] == "refused"


def test_converters_of_other_packages_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtpack.converters import extensions, registry

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(extensions, "_loaded", set())
    (tmp_path / "listed.py").write_text(
        "from trtpack.converters import converter\n"
        "@converter('listed::op')\ndef op(ctx, x): return x\n"
    )
    assert "listed::op  converter" in run("listed::", "--converters", str(tmp_path / "listed.py"))


@pytest.mark.slow
def test_the_page_is_what_the_command_prints() -> None:
    # in a process of its own: converters that other tests import stay registered in this one
    command = [sys.executable, "-m", "trtpack_runtime", "ops", "--markdown"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stored = (ROOT / "docs/reference/ops.md").read_text("utf-8")
    differing = list(difflib.unified_diff(stored.splitlines(), printed.splitlines(), n=0))
    assert not differing, "\n".join(["stale: run scripts/ops", *differing])


@pytest.mark.slow
def test_the_facts_are_what_trying_shows() -> None:
    from tests.packager.converters.facts import facts

    stored = json.loads((ROOT / "packager/trtpack/coverage.json").read_text("utf-8"))
    assert stored == facts(), "stale: run scripts/ops"
