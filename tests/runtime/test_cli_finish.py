# SPDX-License-Identifier: Apache-2.0
"""``trtpack finish``, and what ``resolve`` and ``inspect`` say of engines a device builds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime import deferred
from tests.runtime.command import trtpack
from trtpack_runtime.bundle import Member, open_bundle

CACHE, LOCK = "caches/h200/timing.cache", "caches/h200/timing.lock.json"
KEY = {"tensorrt": "10.16.1", "sm": "9.0", "device": "NVIDIA H200", "sm_count": 132, "module": None}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    names = {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data", "TMPDIR": "tmp"}
    (tmp_path / "tmp").mkdir()
    return {name: str(tmp_path / folder) for name, folder in names.items()}


@pytest.fixture
def rtx(tmp_path: Path) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    return deferred.write(tmp_path / "rtx.tar")


def test_engines_are_built_then_come_from_the_store(
    rtx: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    first = trtpack("finish", rtx, "-o", tmp_path / "one.tar", env=env)
    assert first.code == 0, first.err
    lines = first.out.splitlines()
    assert lines[0] == "ada"
    assert lines[1].split()[0] == "forward_0"
    assert "built here in" in lines[1]
    assert lines[3] == "cpu: lacks no engine that a device builds"
    assert "one.tar with 2 engines built here" in lines[4]
    assert "building forward_0 (1 of 2): 2 layers" in first.err
    second = trtpack("finish", rtx, "-o", rtx, "--target", "ada", env=env)
    assert "from the store, built" in second.out
    assert second.err == ""
    assert rtx.read_bytes() == (tmp_path / "one.tar").read_bytes()
    quiet = trtpack("finish", rtx, "-o", rtx, "--quiet", env=env)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    again = trtpack("finish", rtx, "-o", rtx, "--rebuild", "--json", env=env)
    engines = json.loads(again.out)["engines"]["ada"]
    assert [engine["source"] for engine in engines] == ["built", "built"]
    assert trtpack("verify", rtx).code == 0


@pytest.mark.parametrize(
    "how", [pytest.param((), marks=pytest.mark.slow), ("--json",)], ids=["text", "json"]
)
def test_a_cache_that_cannot_be_written_costs_only_time(
    rtx: Path, tmp_path: Path, env: dict[str, str], how: tuple[str, ...]
) -> None:
    (tmp_path / "cache").touch()
    found = trtpack("finish", rtx, "-o", tmp_path / "out.tar", *how, env=env)
    assert (found.code, "error" in found.err) == (0, False), found.err
    assert "built" in found.out
    assert trtpack("verify", tmp_path / "out.tar").code == 0


def test_ctrl_c_leaves_nothing_behind(rtx: Path, tmp_path: Path, env: dict[str, str]) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", "finish", rtx, "-o", tmp_path / "out.tar"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env, "TMPDIR": str(temporary)},
    )
    assert process.stderr is not None
    assert "building forward_0" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.stderr.read().endswith(
        "error: aborted\nhint: run it again; no unfinished file was left\n"
    )
    assert process.wait() == 130
    assert not (tmp_path / "out.tar").exists()
    assert list(temporary.iterdir()) == []
    store = tmp_path / "cache" / "trtpack" / "engines"
    assert not [p for p in store.rglob("*") if p.suffix in (".engine", ".plan", ".partial")]


def test_what_this_machine_cannot_build(tmp_path: Path, env: dict[str, str]) -> None:
    path = deferred.write(tmp_path / "b.tar", variants=("h200",))
    found = trtpack("finish", path, "-o", tmp_path / "out.tar", env=env)
    assert found.code == 6
    assert found.err.startswith(f"error: cannot build the engines of {path} here: h200: ")
    assert "hint: run it on such a device" in found.err
    assert not (tmp_path / "out.tar").exists()


def test_a_gpu_is_chosen_among_the_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from trtpack_runtime.cli.finish import finish

    for before, wanted in (("", "1"), ("3,GPU-8a", "GPU-8a")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        result = CliRunner().invoke(finish, ["no.tar", "-o", "out.tar", "--gpu", "1"])
        assert result.exit_code != 2, result.output
        assert os.environ["CUDA_VISIBLE_DEVICES"] == wanted


def test_resolve_says_what_is_built_at_the_first_run(tmp_path: Path, env: dict[str, str]) -> None:
    path = deferred.write(tmp_path / "b.tar", variants=("h200",))
    (tmp_path / "h200.json").write_text(json.dumps(deferred.h200()))
    found = trtpack("resolve", path, "--facts", tmp_path / "h200.json", env=env)
    assert found.out.splitlines()[0].split(maxsplit=3)[1:] == [
        "h200",
        "builds",
        "2 engines build here at the first run",
    ]
    as_json = trtpack("resolve", path, "--facts", tmp_path / "h200.json", "--json", env=env)
    value = json.loads(as_json.out)
    assert (value["chosen"], value["degraded"]) == ("h200", False)
    assert value["variants"][0]["engines"]["forward_0"] == {
        "fit": "builds",
        "reason": "builds here at its first run (2 layers)",
    }


def test_run_without_and_with_building(rtx: Path, env: dict[str, str]) -> None:
    both = trtpack("run", rtx, "--no-build", "--rebuild", env=env)
    assert (both.code, both.err.splitlines()[1]) == (2, "hint: give one of them")
    found = trtpack("run", rtx, "--no-build", "--no-bench", "--json", env=env)
    value = json.loads(found.out)
    assert (found.code, value["variant"]) == (0, "cpu")
    assert (value["engines"], value["failed_engines"]) == ({}, {})


@pytest.mark.parametrize("tactics", [None, 3])
def test_inspect_shows_tactic_caches(tmp_path: Path, tactics: int | None) -> None:
    lock = {"tactics": None if tactics is None else [{"key": str(i)} for i in range(tactics)]}
    path = deferred.write(
        tmp_path / "b.tar",
        variants=("h200",),
        caches={"timing": {"member": CACHE, "lock": LOCK, "key": KEY}},
        extra=(Member(CACHE, bytes(4000)), Member(LOCK, json.dumps(lock).encode())),
    )
    told = "" if tactics is None else ", 3 tactics"
    found = trtpack("inspect", path)
    assert f"  timing cache  4 kB{told}, for NVIDIA H200, SM 9.0, TensorRT 10.16.1\n" in found.out
    value = json.loads(trtpack("inspect", "--json", path).out)
    timing = value["variants"]["h200"]["caches"]["timing"]
    assert timing == {"member": CACHE, "lock": LOCK, "key": KEY, "bytes": 4000, "tactics": tactics}
    assert open_bundle(path).manifest.variants["h200"].caches["timing"]["key"] == KEY
