# SPDX-License-Identifier: Apache-2.0
"""``trtpack cache``: what is cached is seen, compared and moved, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from tests.runtime import deferred
from tests.runtime.command import Outcome
from tests.runtime.command import trtpack as run
from trtpack_runtime.bundle import Member
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import ConfigError, DeviceError
from trtpack_runtime.finish import Stores
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, to_lock
from trtpack_tools import cache_items
from trtpack_tools.cache_files import export_files, read_files, write_files
from trtpack_tools.cache_items import lookup, merge, store_item
from trtpack_tools.cli import cache as command

KEY = TacticKey("10.16.2", "9.0", "NVIDIA H200", 132)
ORIN = TacticKey("10.3.0", "8.7", "Orin", 16, "p3701-0005")
HERE = deferred.h200(tensorrt="10.16.2")
ABOUT = {"model": "resnet18", "segment": "forward_0", "target": "h200", "kind": "tensorrt"}
RECORD = {"tensorrt": "10.16.2", "device": "NVIDIA H200", "sm": "9.0", "options": {"tf32": True}}


def tactics(*names: str, key: TacticKey = KEY, tactic: str = "0x1") -> Tactics:
    entries = tuple(
        {"key": name, "tactic": tactic, "time_ms": 0.5, "layer": f"0/{name}"} for name in names
    )
    return Tactics(key, "+".join(names).encode(), entries, {"power_mode": "MAXN"})


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    folder = tmp_path / "cache" / "trtpack"
    return Stores(EngineStore(folder / "engines"), TacticStore(folder / "tactics"))


@pytest.fixture
def trtpack(tmp_path: Path) -> Any:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TRTPACK_STORE_LIMIT": "20GiB"}

    def called(*arguments: str | Path) -> Outcome:
        return run("cache", *arguments, env=env)

    return called


@pytest.fixture
def engine(stores: Stores, tmp_path: Path) -> str:
    """An engine in the store; its key."""
    (tmp_path / "plan").write_bytes(b"plan" * 500)
    key = "3f2a" + "0" * 60
    stores.engines.put(key, tmp_path / "plan", RECORD, about=ABOUT, seconds=12.3)
    return key


def test_everything_is_listed_and_shown(trtpack: Any, stores: Stores, engine: str) -> None:
    stores.tactics.put(KEY, tactics("a", "b"))
    stores.tactics.put(ORIN, Tactics(ORIN, bytes(4000)))
    listed = trtpack("ls").out
    assert listed.startswith("1 engine, 2 kB of 21.5 GB allowed\n")
    assert "\n2 timing caches, 4 kB\n" in listed
    words = re.sub(r"\d+ (seconds?|minutes?) ago", "just now", " ".join(listed.split()))
    about = "resnet18 forward_0 for h200: TensorRT 10.16.2 on NVIDIA H200"
    assert f" 3f2a00000000 2 kB built just now used just now {about} " in words
    assert f" opaque {ORIN}" in words
    assert f" 2 tactics {KEY}" in words
    value = json.loads(trtpack("ls", "--json").out)
    assert [entry["key"] for entry in value["engines"]] == [engine]
    assert {entry["key"]: entry["tactics"] for entry in value["tactics"]} == {
        KEY.digest: 2,
        ORIN.digest: None,
    }
    shown = trtpack("show", "3F2A").out
    assert ", in 12 s\n" in shown
    assert "options   tf32 yes" in shown
    shown = trtpack("show", KEY.digest).out
    assert "power mode    MAXN" in shown
    assert "  a  0x1  0.5 ms  0/a\n" in shown
    assert "tells single tactics from 10.8 on" in trtpack("show", ORIN.digest[:12]).out
    value = json.loads(trtpack("show", KEY.digest, "--json").out)
    assert [entry["key"] for entry in value["tactics"]] == ["a", "b"]


def test_what_tactics_were_measured_under_is_shown_with_units(trtpack: Any, stores: Stores) -> None:
    noted = {"driver": "550.1", "sm_mhz": 1980, "memory_mhz": 3201, "power_limit_w": 700}
    stores.tactics.put(KEY, replace(tactics("a"), provenance=noted))
    shown = [line.split("  ") for line in trtpack("show", KEY.digest).out.splitlines()]
    told = {line[0]: line[-1].strip() for line in shown}
    assert (told["SM clock"], told["memory clock"]) == ("1980 MHz", "3201 MHz")
    assert (told["power limit"], told["driver"]) == ("700 W", "550.1")


def test_an_empty_cache_is_no_error(trtpack: Any) -> None:
    found = trtpack("ls")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("0 engines, 0 bytes of 21.5 GB allowed\n")
    assert json.loads(trtpack("ls", "--json").out)["engines"] == []


def test_an_unknown_key_names_the_nearest(trtpack: Any, stores: Stores, engine: str) -> None:
    found = trtpack("show", "3f2b00000000")
    assert found.code == 2
    assert found.err == (
        "error: nothing is cached under 3f2b00000000\n"
        "hint: did you mean 3f2a00000000? see all keys with: trtpack cache ls\n"
    )
    assert trtpack("show", "").code == 2
    plan = stores.engines.folder / f"{engine}.engine"
    stores.engines.put("3f2b" + "0" * 60, plan, {}, about={}, seconds=1)
    with pytest.raises(ConfigError, match="several keys begin with 3f2: 3f2"):
        lookup(stores, "3f2")


def test_tactics_are_compared_by_key(trtpack: Any, stores: Stores, tmp_path: Path) -> None:
    stores.tactics.put(KEY, tactics("a", "b", "c"))
    other = tactics("b", "c", "d")
    changed = ({**other.entries[0], "tactic": "0x2", "time_ms": 0.4}, *other.entries[1:])  # type: ignore[index]  # it has entries
    write_files(export_files(replace(other, entries=changed)), tmp_path / "b.tar", force=False)
    found = trtpack("diff", KEY.digest, tmp_path / "b.tar")
    assert (found.code, found.err) == (1, "")
    lines = found.out.splitlines()
    assert lines[0] == "1 tactic the same, 1 changed, 1 only in the first, 1 only in the second"
    assert [line.split() for line in lines[1:]] == [
        ["a", "0x1", "0.5", "ms", "->", "none", "0/a"],
        ["b", "0x1", "0.5", "ms", "->", "0x2", "0.4", "ms", "0/b"],
        ["d", "none", "->", "0x1", "0.5", "ms", "0/d"],
    ]
    value = json.loads(trtpack("diff", KEY.digest, tmp_path / "b.tar", "--json").out)
    assert [d["key"] for d in value["differences"]] == ["a", "b", "d"]
    same = trtpack("diff", KEY.digest, KEY.digest)
    assert (same.code, same.out) == (0, "the same 5 bytes, 3 tactics\n")


def test_an_opaque_cache_is_compared_by_size_only(trtpack: Any, tmp_path: Path) -> None:
    for name, size in (("a", 10), ("b", 20)):
        opaque = Tactics(ORIN, bytes(size))
        write_files(export_files(opaque), tmp_path / f"{name}.cache", force=False)
    found = trtpack("diff", tmp_path / "a.cache", tmp_path / "b.cache")
    assert found.code == 2
    assert "TensorRT tells them from 10.8 on, and only the size of an older" in found.err
    same = trtpack("diff", tmp_path / "a.cache", tmp_path / "a.lock.json")
    assert (same.code, same.out) == (0, "the same 10 bytes, opaque\n")


def bundle(path: Path, held: Tactics, **changes: Any) -> Path:
    """A bundle with a timing cache of its variant h200."""
    cache, lock = "caches/h200/timing.cache", "caches/h200/timing.lock.json"
    timing = {"member": cache, "lock": lock, "key": held.key.to_json(), **changes}
    members = (Member(cache, held.blob), Member(lock, to_lock(held)))
    return deferred.write(path, variants=("h200",), caches={"timing": timing}, extra=members)


def test_a_bundles_tactics_are_compared_and_imported(
    trtpack: Any, stores: Stores, tmp_path: Path
) -> None:
    path = bundle(tmp_path / "b.tar", tactics("a"))
    write_files(export_files(tactics("b")), tmp_path / "other", force=False)
    found = trtpack("diff", f"{path}:h200", tmp_path / "other")
    assert found.out.startswith("0 tactics the same, 0 changed, 1 only in the first, 1 only in")
    wrong = trtpack("diff", f"{path}:h20", path)
    assert wrong.err.splitlines()[1] == "hint: did you mean h200?"
    none = trtpack("diff", f"{path}:cpu", path)
    assert "has no timing cache for cpu" in none.err
    assert trtpack("import", path).out == (f"{KEY.digest[:12]}  taken  timing cache of {KEY}\n")
    assert stores.tactics.read(KEY) == replace(tactics("a"), measured=False)
    assert "1 tactic, not run on hardware here" in trtpack("ls").out
    shown = trtpack("show", KEY.digest).out
    assert "not yet: edited or imported, and no build here has begun with it since" in shown
    assert " was there " in trtpack("import", path).out


@pytest.mark.parametrize("to", ["folder", "x.tar", "x.cache"])
def test_a_timing_cache_moves_to_another_device(
    trtpack: Any, stores: Stores, tmp_path: Path, to: str
) -> None:
    stores.tactics.put(KEY, tactics("a"))
    assert trtpack("export", KEY.digest, "-o", tmp_path / to).code == 0
    again = trtpack("export", KEY.digest, "-o", tmp_path / to)
    assert (again.code, again.err.splitlines()[1]) == (2, "hint: add --force to replace it")
    assert trtpack("export", KEY.digest, "-o", tmp_path / to, "--force").code == 0
    stores.tactics.remove(KEY)
    assert trtpack("import", tmp_path / to).code == 0
    assert stores.tactics.read(KEY) == replace(tactics("a"), measured=False)


def test_exports_are_the_same_bytes_every_time(stores: Stores, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_files(export_files(tactics("a")), tmp_path / name, force=False)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("to", ["folder", "x.tar"])
def test_an_engine_moves_to_another_device(
    trtpack: Any, stores: Stores, engine: str, tmp_path: Path, to: str
) -> None:
    assert trtpack("export", engine, "-o", tmp_path / to).code == 0
    before = stores.engines.get(engine)
    assert before is not None
    stores.engines.remove(engine)
    assert "taken  resnet18 forward_0" in trtpack("import", tmp_path / to).out
    after = stores.engines.get(engine)
    assert after is not None
    assert (after.record, after.about, after.seconds) == (
        before.record,
        before.about,
        before.seconds,
    )
    assert after.path.read_bytes() == b"plan" * 500
    assert "was there" in trtpack("import", tmp_path / to).out


@pytest.mark.parametrize("code", [b"PK\3\4 a package", b"plan"])
def test_engines_with_machine_code_need_trust(
    trtpack: Any, stores: Stores, tmp_path: Path, code: bytes
) -> None:
    (tmp_path / "plan").write_bytes(code)
    compatible = {**RECORD, "options": {"version_compatible": not code.startswith(b"PK")}}
    stores.engines.put("a" * 64, tmp_path / "plan", compatible, about=ABOUT, seconds=1)
    assert trtpack("export", "aaaa", "-o", tmp_path / "x.tar").code == 0
    stores.engines.remove("a" * 64)
    found = trtpack("import", tmp_path / "x.tar")
    assert (found.code, found.err.splitlines()[1]) == (
        5,
        "hint: add --trust if you trust who built it",
    )
    assert stores.engines.entries() == []
    assert trtpack("import", tmp_path / "x.tar", "--trust").code == 0
    assert stores.engines.get("a" * 64) is not None


@pytest.mark.parametrize("name", ["engine.plan", "timing.cache"])
def test_what_is_damaged_is_not_imported(
    trtpack: Any, stores: Stores, engine: str, tmp_path: Path, name: str
) -> None:
    stores.tactics.put(KEY, tactics("a"))
    key = engine if name == "engine.plan" else KEY.digest
    trtpack("export", key, "-o", tmp_path / "x")
    (tmp_path / "x" / name).write_bytes(b"other bytes")
    found = trtpack("import", tmp_path / "x")
    assert found.code == 5
    assert "is damaged" in found.err
    assert "Traceback" not in found.err
    assert stores.engines.get(engine) is not None
    assert stores.tactics.read(KEY) == tactics("a")


@pytest.mark.parametrize("content", [b"", bytes(2048), b"a"], ids=["empty", "zeros", "cut off"])
def test_a_timing_cache_that_a_disk_lost_is_damaged(
    trtpack: Any, tmp_path: Path, content: bytes
) -> None:
    write_files(export_files(tactics("a", "b")), tmp_path / "x.cache", force=False)
    (tmp_path / "x.cache").write_bytes(content)
    found = trtpack("import", tmp_path / "x.cache")
    assert found.code == 5
    assert f"is of one with 3 bytes and sha256 300273daf0bb, it has {len(content)} and" in found.err


def test_files_that_are_nothing_of_the_kind(trtpack: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        info = tarfile.TarInfo("timing.cache")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    (tmp_path / "lone.cache").write_bytes(b"cache")
    (tmp_path / "engine.json").write_text("{}")
    cases = {
        "nowhere": "there is no",
        "empty": "holds neither a timing cache nor an engine",
        "odd.tar": "timing.cache is no file",
        "lone.cache": "there is no",
        "engine.json": "is damaged",
    }
    for name, words in cases.items():
        found = trtpack("import", tmp_path / name)
        assert found.code in (2, 5), name
        assert words in found.err, name
        assert found.err.count("\n") == 2, name


def test_caches_are_merged_only_by_their_own_tensorrt(
    trtpack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joined(blobs: Sequence[bytes]) -> bytes:
        return b"+".join(blobs)

    for name in ("a", "b"):
        write_files(export_files(tactics(name)), tmp_path / f"{name}.cache", force=False)
    found = trtpack("merge", "-o", tmp_path / "c.cache", tmp_path / "a.cache", tmp_path / "b.cache")
    assert found.code == 6
    assert "only TensorRT 10.16.2 on such a device can merge timing caches" in found.err
    assert not (tmp_path / "c.cache").exists()
    monkeypatch.setattr(cache_items, "_combine", joined)
    made = merge([tactics("a"), tactics("b", "a", tactic="0x2")], HERE)
    assert made.blob == b"a+b+a"
    assert [(e["key"], e["tactic"]) for e in made.entries or ()] == [("a", "0x1"), ("b", "0x2")]
    with pytest.raises(DeviceError, match=r"they are of .*H200.* with TensorRT 10\.16\.2, this"):
        merge([tactics("a"), tactics("b")], deferred.h200(tensorrt="10.3.0.30"))
    with pytest.raises(ConfigError, match="the device is Orin there, NVIDIA H200 here"):
        merge([tactics("a"), tactics("b", key=ORIN)], HERE)


def test_caches_of_equal_bytes_need_no_tensorrt(trtpack: Any, tmp_path: Path) -> None:
    write_files(export_files(tactics("a")), tmp_path / "a.cache", force=False)
    same = [tmp_path / "a.cache"] * 2
    found = trtpack("merge", "-o", tmp_path / "c.cache", *same)
    assert found.code == 0, found.err
    assert found.out == (f"wrote {tmp_path}/c.cache and {tmp_path}/c.lock.json: 1 tactic, 1 byte\n")
    assert trtpack("diff", tmp_path / "c.cache", tmp_path / "a.cache").code == 0


def test_an_import_does_not_take_the_place_of_what_is_there(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.tactics.put(KEY, tactics("a"))
    with pytest.raises(DeviceError, match=r"another timing cache of .* is there already") as error:
        store_item(tactics("b"), stores, lambda: deferred.h200(gpus=[], tensorrt=None))
    assert error.value.hint == "add --replace to have this one instead of it"
    assert stores.tactics.read(KEY) == tactics("a")
    monkeypatch.setattr(cache_items, "_combine", lambda blobs: b"+".join(blobs))
    assert store_item(tactics("b"), stores, lambda: HERE)
    assert stores.tactics.read(KEY) == replace(tactics("a", "b"), measured=False)
    assert store_item(tactics("b"), stores, lambda: HERE, instead=True)
    assert stores.tactics.read(KEY) == replace(tactics("b"), measured=False)


def test_what_was_edited_by_hand_is_seen_and_written_by_tensorrt_alone(
    trtpack: Any, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.tactics.put(KEY, tactics("a", "b"))
    trtpack("export", KEY.digest, "-o", tmp_path / "x")
    lock = tmp_path / "x" / "timing.lock.json"
    line = '  {"key": "b", "layer": "0/b", "tactic": "0x1", "time_ms": 0.5}'
    assert line in lock.read_text().splitlines()
    lock.write_text(lock.read_text().replace(line, line.replace("0x1", "0x2")))
    found = trtpack("diff", KEY.digest, lock)
    assert found.out.splitlines()[0].startswith("1 tactic the same, 1 changed, ")
    refused = trtpack("import", tmp_path / "x")
    assert (refused.code, "such a device can edit timing caches" in refused.err) == (6, True)

    def edit(blob: bytes, entries: Any) -> Any:
        return blob + b" edited", entries

    monkeypatch.setattr("trtpack_runtime.engines._tactics.edit", edit)
    monkeypatch.setattr(cache_items, "_combine", lambda blobs: blobs[0])
    (item,) = read_files(lock, tmp_path)
    assert store_item(item, stores, lambda: HERE)
    kept = stores.tactics.read(KEY)
    assert kept is not None
    assert (kept.blob, kept.measured, kept.edited) == (b"a+b edited", False, False)
    assert [entry["tactic"] for entry in kept.entries or ()] == ["0x1", "0x2"]


def test_a_store_that_is_read_only_is_told(
    stores: Stores, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match="cannot write to"):
        store_item(tactics("a"), stores, lambda: HERE)
    with pytest.raises(ConfigError, match="cannot write"):
        write_files(export_files(tactics("a")), tmp_path / "x.tar", force=False)
    assert not (tmp_path / "x.tar").exists()


def test_what_is_old_is_pruned_from_here_too(trtpack: Any, stores: Stores, engine: str) -> None:
    stores.tactics.put(KEY, tactics("a"))
    told = trtpack("prune", "--all", "--dry-run").out
    assert told.endswith("would drop 1 engine and 1 timing cache, 2 kB\n")
    assert len(stores.engines.entries()) == 1
    assert trtpack("prune", "--all").code == 0
    assert not [*stores.engines.entries(), *stores.tactics.entries()]


def test_a_shell_completes_keys(
    stores: Stores, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.tactics.put(KEY, tactics("a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    argument = command.show.params[0]
    found = argument.shell_complete(click.Context(command.show), "3f")
    assert [(item.value, item.help) for item in found] == [
        ("3f2a00000000", "resnet18 forward_0 for h200: TensorRT 10.16.2 on NVIDIA H200")
    ]
    assert len(argument.shell_complete(click.Context(command.show), "")) == 2
