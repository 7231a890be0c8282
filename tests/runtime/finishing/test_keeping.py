# SPDX-License-Identifier: Apache-2.0
"""Nothing that a device has built is lost: stores that are damaged, full, shared or read-only."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.read_only import read_only
from tests.runtime import deferred
from tests.runtime.finishing.builds import PLAN, Builds, loaded
from trtpack_runtime import finish, load, store_folder
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.finish import Stores, Workshop, finish_segment
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.progress import Progress


def test_an_interrupted_build_keeps_the_engines_before_it(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    def stop() -> None:
        if builds.names[-1] == "forward_1":
            raise KeyboardInterrupt

    builds.during = stop
    with pytest.raises(KeyboardInterrupt):
        load(bundle.path)
    builds.during = lambda: None
    loaded(bundle.path)
    assert builds.names == ["forward_0", "forward_1", "forward_1"]


@pytest.mark.parametrize("damage", [b"", PLAN, b"x" * 72])
def test_a_damaged_stored_engine_is_built_again(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext], damage: bytes
) -> None:
    first = loaded(bundle.path)
    first.own_engines["forward_0"].path.write_bytes(damage)
    assert loaded(bundle.path).smoke().passed
    assert builds.names == ["forward_0", "forward_1", "forward_0"]


def test_a_store_that_cannot_be_written_costs_only_time(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    for _ in range(2):
        module = loaded(bundle.path)
        assert module.smoke().passed
    assert builds.names == ["forward_0", "forward_1"] * 2
    assert "not kept: the disk of the store takes nothing" in module.own_engines["forward_0"].told


def test_on_a_read_only_disk_engines_are_kept_elsewhere(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", (tmp_path,))
    (tmp_path / "cache").mkdir()
    with read_only(tmp_path / "cache"):
        first = loaded(bundle.path)
        assert first.smoke().passed
        kept = tmp_path / f"trtpack-{os.getuid()}" / "engines"
        assert f", kept in {kept}, " in first.own_engines["forward_0"].told
        assert first.own_engines["forward_0"].path.parent == kept
        assert loaded(bundle.path).smoke().passed
    assert builds.names == ["forward_0", "forward_1"]


def test_a_full_disk_below_the_store_costs_only_time(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    builds.during = lambda: monkeypatch.setattr(os, "fsync", full)
    assert loaded(bundle.path).smoke().passed


def test_a_full_disk_for_the_build_leaves_pytorch(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    for segment in deferred.SEGMENTS:
        builds.fail[segment] = ConfigError("cannot write: no space left on device")
    with pytest.warns(DegradedWarning, match="no space left"):
        assert load(bundle.path).smoke().passed


def test_a_bundle_that_is_replaced_meanwhile_is_refused(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    builds.during = lambda: void(deferred.write(bundle.path, variants=("h200",), scale=2.0))
    with pytest.raises(BundleError, match="was replaced while its engines were built"):
        load(bundle.path)
    assert Stores().engines.entries() == []


def void(_: object) -> None:
    """Forgets an answer."""


def test_an_engine_that_another_process_builds_is_waited_for(
    bundle: Bundle, builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "_PATIENCE_S", 0.01)
    here, stores, told = deferred.h200(), Stores(), list[Progress]()
    shop = Workshop(here, tmp_path, stores)
    first = finish_segment(bundle, "h200", "forward_0", shop)
    kept = first.path.read_bytes(), first.path.with_suffix(".json").read_bytes()
    stores.engines.remove(first.key)
    held, free = threading.Event(), threading.Event()

    def other() -> None:
        with stores.engines.lock(first.key):
            held.set()
            free.wait(30)
            first.path.write_bytes(kept[0])
            first.path.with_suffix(".json").write_bytes(kept[1])

    def hear(progress: Progress) -> None:
        told.append(progress)
        free.set()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(30)
    found = finish_segment(bundle, "h200", "forward_0", replace(shop, on_progress=hear))
    thread.join()
    assert [p.begin() for p in told] == ["waiting for forward_0, which another process builds"]
    assert found.cached
    assert builds.names == ["forward_0"]
