# SPDX-License-Identifier: Apache-2.0
"""``trtpack prune`` drops what is old or large, and only says so where asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trtpack_runtime.cli.prune import prune
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.finish import Stores
from trtpack_runtime.tactics import TacticKey, Tactics

KEY = TacticKey("10.3.0", "8.7", "Orin", 16, "p3701-0005")


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    """An engine of 2 kB used long ago, one used now, and a timing cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTPACK_STORE_LIMIT", "20G")
    found, plan = Stores(), tmp_path / "plan"
    plan.write_bytes(bytes(2000))
    for key in ("old", "new"):
        about = {"model": "resnet18", "segment": key}
        found.engines.put(key, plan, {}, about=about, seconds=1.0)
    os.utime(found.engines.folder / "old.engine", (1000, 1000))
    found.tactics.put(KEY, Tactics(KEY, bytes(100)))
    return found


def called(*arguments: str) -> Result:
    return CliRunner().invoke(prune, arguments)


def test_what_is_old_goes(stores: Stores) -> None:
    would = called("--older-than", "30d", "--dry-run").output
    assert would.splitlines()[-1] == "would drop 1 engine and 0 timing caches, 2 kB"
    assert "resnet18 old" in would
    assert len(stores.engines.entries()) == 2
    found = json.loads(called("--older-than", "30d", "--json").output)
    assert found == {"dropped": ["old"], "bytes": 2000, "dry_run": False}
    assert [entry.key for entry in stores.engines.entries()] == ["new"]


def test_what_is_too_much_goes(stores: Stores) -> None:
    assert called("--size", "5G").output == "dropped 0 engines and 0 timing caches, 0 bytes\n"
    assert called("--size", "2k", "--only", "engines").exit_code == 0
    assert [entry.key for entry in stores.engines.entries()] == ["new"]
    assert len(stores.tactics.entries()) == 1


def test_without_options_the_limit_holds(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called().output == "dropped 0 engines and 0 timing caches, 0 bytes\n"
    monkeypatch.setenv("TRTPACK_STORE_LIMIT", "3k")
    assert called().output.splitlines()[-1] == "dropped 1 engine and 0 timing caches, 2 kB"
    assert len(stores.tactics.entries()) == 1


def test_all_is_all(stores: Stores) -> None:
    assert "would drop 2 engines and 1 timing cache" in called("--all", "--dry-run").output
    assert called("--all").output.splitlines()[-1] == "dropped 2 engines and 1 timing cache, 4.1 kB"
    assert (stores.engines.entries(), stores.tactics.entries()) == ([], [])


def test_a_build_that_runs_is_left_alone(stores: Stores, tmp_path: Path) -> None:
    half = stores.engines.folder / ".busy.engine.x.partial"
    with stores.engines.lock("busy"):
        half.write_bytes(b"half")
        assert called("--all").exit_code == 0
        assert half.exists()
        (tmp_path / "plan").write_bytes(b"plan")
        assert stores.engines.put("busy", tmp_path / "plan", {}, about={}, seconds=1.0) is not None
    assert [entry.key for entry in stores.engines.entries()] == ["busy"]


def test_a_loaded_engine_stays_readable(stores: Stores) -> None:
    found = stores.engines.get("new")
    assert found is not None
    with found.path.open("rb") as file:
        assert called("--all").exit_code == 0
        assert file.read() == bytes(2000)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--size", "much"), "write it as 500M or 5G"),
        (("--older-than", "30"), "write it as 12h, 30d or 8w"),
        (("--all", "--size", "1G"), "give --all alone, or without it"),
    ],
)
def test_wrong_bounds(stores: Stores, arguments: tuple[str, ...], hint: str) -> None:
    error = called(*arguments).exception
    assert isinstance(error, ConfigError)
    assert error.hint == hint


def test_a_store_that_is_read_only_is_told(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    error = called("--size", "0").exception
    assert isinstance(error, ConfigError)
    assert error.message.startswith("cannot remove 3 of 3 from ")
