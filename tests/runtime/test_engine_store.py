# SPDX-License-Identifier: Apache-2.0
"""Built engines are kept by all they depend on, within a limit; no trouble there is an error."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import handmade
from trtpack_runtime.engine_store import EngineStore, content_of, engine_key, tensorrt_parts

FACTS: dict[str, Any] = {
    "gpus": [{"name": "NVIDIA H200", "sm": "9.0", "multiprocessors": 132}],
    "tensorrt": "10.3.0.30",
    "driver": {"version": "550.1"},
    "jetson": None,
    "runtime": "0.1.0",
    "os": "linux",
    "arch": "x86_64",
}


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines", limit_bytes=250)


def put(store: EngineStore, key: str, size: int = 100) -> None:
    plan = store.folder.parent / "plan"
    plan.write_bytes(bytes(size))
    store.put(key, plan, {"sm": "9.0"}, about={"model": key}, seconds=2.5)


def test_what_is_put_is_found(store: EngineStore) -> None:
    assert store.get("a") is None
    put(store, "a")
    found = store.get("a")
    assert found is not None
    assert found.path.read_bytes() == bytes(100)
    assert (found.record, found.seconds, found.nbytes) == ({"sm": "9.0"}, 2.5, 100)
    assert abs(found.built_at - time.time()) < 60
    assert store.remove("a")
    assert store.get("a") is None


def test_what_is_used_least_goes_first(store: EngineStore) -> None:
    for age, key in enumerate("ab"):
        put(store, key)
        os.utime(store.folder / f"{key}.engine", (1000 + age, 1000 + age))
    assert store.get("a") is not None  # used now
    put(store, "c")
    assert {entry.key for entry in store.entries()} == {"a", "c"}
    put(store, "large", 1000)
    assert [entry.key for entry in store.entries()] == ["large"]
    assert [entry.key for entry in store.prune(older_than_s=-1)] == ["large"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_entry_is_dropped(store: EngineStore, content: bytes) -> None:
    put(store, "a")
    (store.folder / "a.engine").write_bytes(content)
    assert store.get("a") is None
    assert list(store.folder.glob("a*")) == []
    put(store, "a")
    (store.folder / "a.json").write_bytes(content)
    assert store.get("a") is None


def test_a_disk_that_refuses_is_no_error(
    store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    none = EngineStore(tmp_path / "file")
    put(none, "a")
    assert none.get("a") is None
    assert none.entries() == []
    with none.lock("a"):
        pass

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    put(store, "a")
    assert store.get("a") is None
    assert list(store.folder.iterdir()) == []


def test_a_lock_is_held_by_one_at_a_time(store: EngineStore) -> None:
    order = []

    def wait() -> None:
        with store.lock("a"):
            order.append("second")

    thread = threading.Thread(target=wait)
    with store.lock("a"), store.lock("b"):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": [{**FACTS["gpus"][0], "name": "NVIDIA H100"}]},
        {"gpus": [{**FACTS["gpus"][0], "sm": "8.9"}]},
        {"gpus": [{**FACTS["gpus"][0], "multiprocessors": 114}]},
        {"tensorrt": "10.3.0.31"},
        {"driver": {"version": "550.2"}},
        {"jetson": {"module": "p3767-0000"}},
        {"runtime": "0.2.0"},
        {"arch": "aarch64"},
    ],
    ids=str,
)
def test_an_engine_of_another_machine_is_another(change: dict[str, Any]) -> None:
    parts = tensorrt_parts("a" * 64, {"tf32": True}, FACTS)
    assert engine_key(parts) == engine_key(tensorrt_parts("a" * 64, {"tf32": True}, FACTS))
    assert engine_key(parts) != engine_key(tensorrt_parts("a" * 64, {"tf32": True}, FACTS | change))
    assert engine_key(parts) != engine_key(tensorrt_parts("a" * 64, {"tf32": False}, FACTS))
    assert engine_key(parts) != engine_key(tensorrt_parts("b" * 64, {"tf32": True}, FACTS))


def test_weights_that_a_network_does_not_read_do_not_count() -> None:
    network = handmade.network()
    assert content_of(network, {}) == content_of(network, {"fc.weight": "1" * 64})
