# SPDX-License-Identifier: Apache-2.0
"""Timing caches are kept by the device they are of, and combined only by TensorRT."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.trt_double import controls, double, releases
from trtpack_runtime.device_tactics import keep_tactics, prove_locked
from trtpack_runtime.engines import _tactics
from trtpack_runtime.errors import BundleError, ConfigError, EngineBuildError
from trtpack_runtime.tactic_differences import compare, differences
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, from_lock, merged, to_lock

KEY = TacticKey("10.3.0.30", "9.0", "NVIDIA H200", 132)
PLAIN = [release for release in releases() if not release.startswith("rtx")]


def entry(key: str, tactic: str) -> dict[str, Any]:
    return {"key": key, "tactic": tactic, "time_ms": 0.5}


def test_a_key_is_all_that_a_device_is_known_by() -> None:
    facts = {
        "tensorrt": "10.3.0.30",
        "gpus": [{"name": "NVIDIA H200", "sm": "9.0", "multiprocessors": 132}],
        "jetson": None,
    }
    assert TacticKey.of(facts) == KEY
    assert TacticKey.from_json(KEY.to_json()) == KEY
    orin = TacticKey.of({**facts, "jetson": {"module": "p3767-0000"}})
    assert orin.module == "p3767-0000"
    assert len({KEY.digest, orin.digest, TacticKey.of(facts, "8.6.0").digest}) == 3


def test_what_is_put_is_read_for_that_key_only(tmp_path: Path) -> None:
    store = TacticStore(tmp_path)
    assert store.read(KEY) is None
    tactics = Tactics(KEY, b"cache", (entry("a", "1"),), {"power_mode": "MAXN"})
    assert store.put(KEY, tactics)
    assert store.read(KEY) == tactics
    other = TacticKey("10.3.0.30", "9.0", "NVIDIA H100", 132)
    assert store.read(other) is None
    assert not store.put(other, tactics)
    assert store.entries() == [tactics]
    assert store.remove(KEY)
    assert store.entries() == []


def test_a_second_build_adds_to_the_first(tmp_path: Path) -> None:
    store = TacticStore(tmp_path)
    store.put(KEY, Tactics(KEY, b"1", (entry("a", "1"), entry("b", "1"))))
    later = Tactics(KEY, b"2", (entry("b", "2"), entry("c", "2")))
    store.put(KEY, later, lambda blobs: b"+".join(blobs))
    found = store.read(KEY)
    assert found is not None
    assert found.blob == b"1+2"
    assert found.entries == (entry("a", "1"), entry("b", "1"), entry("c", "2"))


def test_what_another_process_kept_is_not_lost(tmp_path: Path) -> None:
    store, began = TacticStore(tmp_path), Tactics(KEY, b"began", (entry("a", "1"),))
    store.put(KEY, began)
    one, two = (Tactics(KEY, b, (entry("a", "1"), entry(b.decode(), "2"))) for b in (b"x", b"y"))
    keep_tactics(store, one, {b"began"})
    assert store.read(KEY) == one
    keep_tactics(store, two, {b"began"})  # no TensorRT here combines them: the last one stays whole
    assert store.read(KEY) == two


def test_entries_are_those_of_the_bytes_that_stay() -> None:
    old, new = Tactics(KEY, b"1", (entry("a", "1"),)), Tactics(KEY, b"2", (entry("b", "2"),))
    assert merged(old, new, lambda blobs: blobs[1]).entries == new.entries
    assert merged(old, new, lambda blobs: blobs[0]).entries == old.entries
    assert merged(old, Tactics(KEY, b"2"), lambda blobs: b"12").entries is None
    assert not merged(old, replace(new, measured=False), lambda blobs: b"12").measured


def test_tactics_count_as_run_where_what_stays_was() -> None:
    edited, built = Tactics(KEY, b"1", (), measured=False), Tactics(KEY, b"2", ())
    assert merged(edited, built, lambda blobs: blobs[1]).measured
    assert not merged(edited, built, lambda blobs: b"12").measured
    assert merged(built, edited, lambda blobs: blobs[0]).measured
    assert not merged(edited, built, lambda blobs: blobs[0]).measured
    assert merged(edited, replace(edited, measured=True), lambda blobs: b"").measured


def test_a_layer_is_remembered_from_the_build_that_measured_it(tmp_path: Path) -> None:
    store, first = TacticStore(tmp_path), {**entry("a", "1"), "layer": "0/conv"}
    store.put(KEY, Tactics(KEY, b"1", (first,)))
    store.put(KEY, Tactics(KEY, b"2", (entry("a", "1"), entry("b", "2"))))
    found = store.read(KEY)
    assert found is not None
    assert found.entries == (first, entry("b", "2"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "NVIDIA H100"}, "the device is NVIDIA H100 there, NVIDIA H200 here"),
        ({"tensorrt": "10.3.1"}, "TensorRT is 10.3.1 there, 10.3.0.30 here"),
        ({"module": "p3767-0000"}, "the Jetson module is p3767-0000 there, unknown here"),
        ({"sm_count": 66}, "the number of multiprocessors is 66 there, 132 here"),
    ],
)
def test_tactics_of_another_device_are_refused_in_words(change: dict[str, Any], words: str) -> None:
    other = Tactics(replace(KEY, **change), b"1", ())
    with pytest.raises(ConfigError, match=f"are of no use for .*: {words}") as refused:
        merged(other, Tactics(KEY, b"2", ()), lambda blobs: b"12")
    assert refused.value.hint.startswith("take a timing cache that was made on this device")
    with pytest.raises(ConfigError, match="are of no use for"):
        compare(other, Tactics(KEY, b"2", ()))


def test_a_locked_build_is_proved_by_key_and_tactic() -> None:
    wanted = Tactics(KEY, b"1", (entry("a", "1"), {**entry("b", "2"), "layer": "0/conv"}))
    slower = {**entry("a", "1"), "time_ms": 0.7}
    assert compare(wanted, Tactics(KEY, b"2", (slower, entry("b", "2"), entry("c", "3")))) == []
    changed, gone = compare(wanted, Tactics(KEY, b"1", (entry("b", "3"),)))
    assert str(changed) == "a: 1 became none"
    assert str(gone) == "b of 0/conv: 2 became 3"
    added = differences(wanted, Tactics(KEY, b"3", (*(wanted.entries or ()), entry("c", "3"))))
    assert [(d.first, d.second) for d in added] == [(None, entry("c", "3"))]
    with pytest.raises(ConfigError, match=r"cannot be read: TensorRT tells them from 10\.8 on"):
        compare(wanted, Tactics(KEY, b"1"))


def test_a_timing_cache_that_is_not_its_locks_is_damaged(tmp_path: Path) -> None:
    lock = to_lock(Tactics(KEY, b"cache"))
    with pytest.raises(BundleError, match=r"is damaged: .* 5 bytes .*, it has 6 and") as error:
        from_lock(lock, b"cache+")
    assert error.value.wants != error.value.has
    with pytest.raises(BundleError, match=r"it has 0 and e3b0c44298fc"):
        from_lock(lock, b"")
    store = TacticStore(tmp_path)
    store.put(KEY, Tactics(KEY, b"cache"))
    (tmp_path / f"{KEY.digest}.cache").write_bytes(b"Cache")
    assert store.read(KEY) is None
    assert store.prune() == []
    assert (tmp_path / f"{KEY.digest}.cache").exists()  # somebody may be writing it just now
    for path in tmp_path.glob("*.*"):
        os.utime(path, (1000, 1000))
    assert store.prune() == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_what_was_not_written_for_long_is_pruned_first(tmp_path: Path) -> None:
    store = TacticStore(tmp_path)
    keys = [replace(KEY, tensorrt=version) for version in ("8.6.2", "10.3.0", "10.16.2")]
    for age, key in enumerate(keys):
        store.put(key, Tactics(key, bytes(100)))
        os.utime(tmp_path / f"{key.digest}.cache", (1000 + age, 1000 + age))
    assert [t.key for t in store.prune(250)] == keys[:1]
    assert [t.key for t in store.prune(older_than_s=60)] == [keys[2], keys[1]]
    assert store.entries() == []


def test_concurrent_builds_lose_nothing(tmp_path: Path) -> None:
    def put(name: str) -> None:
        tactics = Tactics(KEY, name.encode(), (entry(name, "1"),))
        TacticStore(tmp_path).put(KEY, tactics, lambda blobs: b"+".join(blobs))

    threads = [threading.Thread(target=put, args=(f"k{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = TacticStore(tmp_path).read(KEY)
    assert found is not None
    assert sorted(found.blob.decode().split("+")) == sorted(f"k{i}" for i in range(12))
    assert len(found.entries or ()) == 12


@pytest.mark.parametrize("damage", [b"", b"{", b'{"tactics":3}'])
def test_a_damaged_store_knows_nothing(tmp_path: Path, damage: bytes) -> None:
    store = TacticStore(tmp_path)
    store.put(KEY, Tactics(KEY, b"cache"))
    for path in tmp_path.glob("*.lock.json"):
        path.write_bytes(damage)
    assert store.read(KEY) is None
    assert store.entries() == []
    assert store.put(KEY, Tactics(KEY, b"again"))
    assert store.read(KEY) is not None


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not TacticStore(tmp_path).put(KEY, Tactics(KEY, b"cache"))
    (tmp_path / "file").touch()
    assert not TacticStore(tmp_path / "file").put(KEY, Tactics(KEY, b"cache"))


def test_the_readable_twin_says_what_is_known() -> None:
    opaque = json.loads(to_lock(Tactics(KEY, b"cache")))
    assert (opaque["tactics"], opaque["key"]["device"]) == (None, "NVIDIA H200")
    lock = to_lock(Tactics(KEY, b"cache", (entry("a", "1"),)))
    assert from_lock(lock, b"cache").entries == (entry("a", "1"),)
    with pytest.raises(BundleError, match="no list of tactics"):
        from_lock(b"[]")


def test_an_edit_by_hand_shows_and_stays_until_it_is_written() -> None:
    lock = to_lock(Tactics(KEY, b"cache", (entry("a", "1"), entry("b", "2"))))
    assert from_lock(lock, b"cache").measured
    named = lock.replace(b'"key": "a"', b'"key": "a", "layer": "0/conv"')
    assert not from_lock(named, b"cache").edited  # a note
    edited = from_lock(lock.replace(b'"tactic": "2"', b'"tactic": "3"'), b"cache")
    assert (edited.edited, edited.measured) == (True, False)
    assert from_lock(to_lock(edited), b"cache") == edited


@pytest.mark.parametrize("release", PLAIN)
def test_tensorrt_combines_caches_of_one_device(release: str, tmp_path: Path) -> None:
    trt = double(release)
    blobs = []
    for name in ("a", "b"):
        config = trt.Builder(trt.Logger()).create_builder_config()
        cache = config.create_timing_cache(b"")
        cache._entries[name] = [1, 0.5]
        blobs.append(bytes(cache.serialize()))
    for index, blob in enumerate(blobs):
        (tmp_path / f"cache.{index}").write_bytes(blob)
    _tactics.run(trt, {"op": "combine", "count": 2}, tmp_path, lambda event: True)
    combined = (tmp_path / "combined").read_bytes()
    assert b'"a"' in combined
    assert b'"b"' in combined
    other = blobs[1].replace(f'"{controls(trt).device}"'.encode(), b'"another GPU"')
    (tmp_path / "cache.1").write_bytes(other)
    with pytest.raises(EngineBuildError, match="timing cache 1 is of another GPU"):
        _tactics.run(trt, {"op": "combine", "count": 2}, tmp_path, lambda event: True)
    answer = _tactics.run(trt, {"op": "read", "count": 1}, tmp_path, lambda event: True)
    told = [{"key": "a", "tactic": "0x0000000000000001", "time_ms": 0.5}]
    assert answer["entries"] == (told if hasattr(trt.ITimingCache, "queryKeys") else None)
    (tmp_path / "cache.0").write_bytes(b"damaged")
    with pytest.raises(EngineBuildError, match="timing cache 0 is damaged"):
        _tactics.run(trt, {"op": "combine", "count": 2}, tmp_path, lambda event: True)


def test_what_is_locked_is_the_first_of_what_is_known() -> None:
    store = Tactics(KEY, b"1", (entry("a", "0x1"),))
    bundle = Tactics(KEY, b"2", (entry("a", "0x2"), entry("b", "0x2")))
    built = Tactics(KEY, b"3", (entry("a", "0x1"), entry("b", "0x2")))
    prove_locked("forward_0", [store, bundle], built)
    prove_locked("forward_0", [Tactics(KEY, b"opaque")], built)
    with pytest.raises(EngineBuildError, match="forward_0: 1 of 2 locked tactics changed"):
        prove_locked("forward_0", [bundle, store], built)
