# SPDX-License-Identifier: Apache-2.0
"""Tactics that a device has measured go from build to build, and into the finished bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from tests.runtime.finishing.builds import Builds, finished
from trtpack_runtime.bundle import Bundle, Member, open_bundle
from trtpack_runtime.engines import _tactics, tensorrt
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.finish import Stores, Workshop, finish_segment
from trtpack_runtime.tactics import TacticKey, Tactics, to_lock


def test_tactics_go_from_build_to_build(bundle: Bundle, builds: Builds, tmp_path: Path) -> None:
    here = deferred.h200()
    found = finished(bundle, tmp_path / "finished.tar", here)
    assert builds.seeds == [None, b"forward_0"]
    cache = found.bundle.manifest.variants["h200"].caches["timing"]
    assert cache["key"] == TacticKey.of(here).to_json()
    assert found.bundle.json(cache["lock"])["provenance"] == {"driver": "550.1"}
    assert bytes(found.bundle.member(cache["member"])) == b"forward_0forward_1"


def test_what_was_seen_of_the_gpu_is_noted_and_a_refused_cache_told(
    bundle: Bundle, builds: Builds, tmp_path: Path
) -> None:
    builds.gpu = {"sm_mhz": 1980, "memory_mhz": 3201, "taken_bytes": 5}
    builds.refused = "is damaged"
    found = finished(bundle, tmp_path / "finished.tar", deferred.h200())
    cache = found.bundle.manifest.variants["h200"].caches["timing"]
    noted = {"driver": "550.1", "sm_mhz": 1980, "memory_mhz": 3201}
    assert found.bundle.json(cache["lock"])["provenance"] == noted
    told = {engine.told.partition(", ")[2] for engine in found.engines["h200"]}
    assert told == {"tactics measured anew: the timing cache is damaged"}


@pytest.mark.parametrize("same", [True, False])
def test_a_bundle_seeds_the_tactics_of_its_device_only(
    tmp_path: Path, builds: Builds, same: bool
) -> None:
    here = deferred.h200()
    key = TacticKey.of(here).to_json() | ({} if same else {"device": "NVIDIA H100"})
    member = "caches/h200/timing.cache"
    path = deferred.write(
        tmp_path / "b.tar",
        variants=("h200",),
        caches={"timing": {"member": member, "key": key}},
        extra=(Member(member, b"measured"),),
    )
    finish_segment(open_bundle(path), "h200", "forward_0", Workshop(here, tmp_path))
    assert builds.seeds == [b"measured" if same else None]


@pytest.mark.parametrize("now", ["0x1", "0x2"])
def test_a_device_proves_a_locked_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    here = deferred.h200()
    key = TacticKey.of(here)
    held = Tactics(key, b"locked", ({"key": "a", "tactic": "0x1"},))
    cache, lock = "caches/h200/timing.cache", "caches/h200/timing.lock.json"
    path = deferred.write(
        tmp_path / "b.tar",
        variants=("h200",),
        engines={"options": {"locked": True}},
        caches={"timing": {"member": cache, "lock": lock, "key": key.to_json()}},
        extra=(Member(cache, held.blob), Member(lock, to_lock(held))),
    )
    seeds = []

    def build(network: Any, weights: Any, plan: Path, **given: Any) -> tensorrt.Built:
        seeds.append(given["tactics"])
        plan.write_bytes(b"plan")
        after = ({"key": "a", "tactic": now}, {"key": "b", "tactic": "0x3"})
        return tensorrt.Built({}, 1.0, b"after", after, ())

    monkeypatch.setattr(tensorrt, "build", build)
    stores, bundle = Stores(), open_bundle(path)
    shop = Workshop(here, tmp_path, stores)
    if now == "0x1":
        made = finish_segment(bundle, "h200", "forward_0", shop)
        assert not made.cached
        assert made.told.endswith(" s, tactics as locked (1 of 1)")
        assert stores.tactics.read(key) is not None
    else:
        with pytest.raises(EngineBuildError, match="1 of 1 locked tactics changed, first a: 0x1"):
            finish_segment(bundle, "h200", "forward_0", shop)
        assert stores.tactics.read(key) is None
        assert stores.engines.entries() == []
    assert seeds == [b"locked"]


def test_an_engine_serves_only_with_the_tactics_that_were_chosen(
    tmp_path: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = deferred.h200()
    key, member = TacticKey.of(here), "caches/h200/timing.cache"
    monkeypatch.setattr(_tactics, "combine", lambda blobs: b"+".join(blobs))

    def built(name: str, blob: bytes, *, chosen: bool = True) -> bool:
        timing = {"member": member, "key": key.to_json(), **({"chosen": True} if chosen else {})}
        path = deferred.write(
            tmp_path / name,
            variants=("h200",),
            caches={"timing": timing},
            extra=(Member(member, blob),),
        )
        shop = Workshop(here, tmp_path)
        return not finish_segment(open_bundle(path), "h200", "forward_0", shop).cached

    assert built("plain.tar", b"measured", chosen=False)
    assert not built("again.tar", b"others", chosen=False)
    assert built("first.tar", b"one")
    assert builds.seeds[-1] == b"one+measuredforward_0"  # of two, TensorRT keeps the first
    assert not built("first.tar", b"one")
    assert built("second.tar", b"two")
    assert not built("plain.tar", b"measured", chosen=False)


def test_tactics_of_store_and_bundle_are_combined(
    tmp_path: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = deferred.h200()
    key = TacticKey.of(here)
    Stores().tactics.put(key, Tactics(key, b"stored"))
    member = "caches/h200/timing.cache"
    path = deferred.write(
        tmp_path / "b.tar",
        variants=("h200",),
        caches={"timing": {"member": member, "key": key.to_json()}},
        extra=(Member(member, b"bundled"),),
    )
    monkeypatch.setattr(_tactics, "combine", lambda blobs: b"+".join(blobs))
    finished(open_bundle(path), tmp_path / "out.tar", here)
    first = b"stored+bundled"
    assert builds.seeds == [first, first + b"forward_0"]
    known = Stores().tactics.read(key)
    assert known is not None
    assert known.blob.endswith(first + b"forward_0forward_1")

    def refused(blobs: Sequence[bytes]) -> bytes:
        raise EngineBuildError("they do not belong together")

    monkeypatch.setattr(_tactics, "combine", refused)
    shop = Workshop(here, tmp_path, rebuild=True)
    finish_segment(open_bundle(path), "h200", "forward_0", shop)
    assert builds.seeds[-1] == b"bundled"
