# SPDX-License-Identifier: Apache-2.0
"""Timing caches are kept by the device they are of, and combined only by TensorRT."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.trt_double import controls, double, releases
from trtpack_runtime.engines import _tactics
from trtpack_runtime.errors import BundleError, EngineBuildError
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, from_lock, to_lock

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
    other = blobs[1].replace(controls(trt).device.encode(), b"another GPU")
    (tmp_path / "cache.1").write_bytes(other)
    with pytest.raises(EngineBuildError, match="timing cache 1 is damaged, or of another"):
        _tactics.run(trt, {"op": "combine", "count": 2}, tmp_path, lambda event: True)
    (tmp_path / "cache.0").write_bytes(b"damaged")
    with pytest.raises(EngineBuildError, match="timing cache 0 is damaged"):
        _tactics.run(trt, {"op": "combine", "count": 2}, tmp_path, lambda event: True)
