# SPDX-License-Identifier: Apache-2.0
"""A device builds what its bundle leaves to it, once, and nothing it has is lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred
from trtpack_runtime import finish, load, placement, store_folder
from trtpack_runtime.bundle import Bundle, Member, open_bundle
from trtpack_runtime.engines import (
    LoadContext,
    Runner,
    _tactics,
    engine,
    reference,
    tensorrt,
)
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import (
    BundleError,
    ConfigError,
    DeviceError,
    EngineBuildError,
)
from trtpack_runtime.finish import Stores, Workshop, finish_segment
from trtpack_runtime.finish_bundle import FinishedBundle, finish_bundle
from trtpack_runtime.ledger import trusted
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.module import BundleModule
from trtpack_runtime.own_engines import own_engines
from trtpack_runtime.progress import Progress
from trtpack_runtime.resolve import choose, resolve
from trtpack_runtime.tactics import TacticKey, Tactics, to_lock

PLAN = b"plan of "
X = torch.linspace(-2, 8, 12).reshape(3, 4)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores and ledger of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", ())


@contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    """A disk of its own, mounted read-only; the test is skipped where that may not be done."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


class Builds:
    """Stands for ``tensorrt.build``: writes a plan that names what it was built from."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seeds: list[bytes | None] = []
        self.fail: dict[str, Exception] = {}
        self.during: Callable[[], None] = lambda: None
        self.refused: str | None = None
        self.gpu: dict[str, int] = {}

    def __call__(self, network: Any, weights: Any, plan: Path, **given: Any) -> tensorrt.Built:
        name = given["name"]
        self.names.append(name)
        self.seeds.append(given["tactics"])
        told = given["on_progress"]
        for step in range(5):
            told({"phase": "Building", "parent": None, "step": step, "steps": 4})
        self.during()
        if name in self.fail:
            raise self.fail[name]
        plan.write_bytes(PLAN + network.digest().encode())
        record = tensorrt.record_of(given["facts"]["tensorrt"], given["options"], given["facts"])
        after = (given["tactics"] or b"") + name.encode()
        return tensorrt.Built(record, 1.5, after, None, (), self.refused, self.gpu)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    fake = Builds()
    monkeypatch.setattr(tensorrt, "build", fake)
    return fake


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(deferred.write(tmp_path / "bundle.tar", variants=("h200",)))


@pytest.fixture
def on_h200(monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadContext]:
    """Loads as on an H200; the engines are evaluated, and each one's context kept by segment."""
    contexts: dict[str, LoadContext] = {}

    def loaded(blob: memoryview | Path | None, context: LoadContext) -> Runner:
        assert isinstance(blob, memoryview)
        assert context.network is not None
        if bytes(blob) != PLAN + context.network.digest().encode():
            raise BundleError("TensorRT cannot read the engine", hint="build it again")
        contexts[context.segment.name] = context
        return reference.load(None, context)

    monkeypatch.setattr(tensorrt, "load", loaded)
    monkeypatch.setattr(placement, "facts", deferred.h200)
    monkeypatch.setattr(placement, "GPU", "cpu")
    return contexts


def loaded(path: Path, **options: Any) -> BundleModule:
    """The bundle, which must not be degraded."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegradedWarning)
        return load(path, **options)


def finished(bundle: Bundle, path: Path, facts: Mapping[str, Any], **how: Any) -> FinishedBundle:
    with tempfile.TemporaryDirectory() as scratch:
        target = how.pop("target", None)
        return finish_bundle(bundle, path, Workshop(facts, Path(scratch), **how), target=target)


def fits(bundle: Bundle, facts: Mapping[str, Any], **how: Any) -> dict[str, tuple[str, str]]:
    own = own_engines(bundle, facts, Stores().engines, **how)
    found = resolve(bundle.manifest, facts, (), own)
    return {c.variant: (c.verdict.fit, c.verdict.reason) for c in found}


# --- choosing ------------------------------------------------------------------------------------
def test_what_can_be_built_here_outranks_the_cpu(bundle: Bundle) -> None:
    here = deferred.h200()
    own = own_engines(bundle, here, Stores().engines)
    candidates = resolve(bundle.manifest, here, (), own)
    assert [c.variant for c in candidates] == ["h200", "cpu"]
    assert candidates[0].verdict.reason == "2 engines build here at the first run"
    assert candidates[0].engines["forward_0"].reason == "builds here at its first run (2 layers)"
    choice = choose(bundle.manifest, candidates, here, strict=True)
    assert (choice.variant, choice.degraded) == ("h200", False)


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        (
            {"tensorrt": None},
            "rebuild",
            "not built yet, and cannot be built here: TensorRT is not installed",
        ),
        (
            {"tensorrt": "8.6.0"},
            "rebuild",
            "not built yet, and cannot be built here: this machine has TensorRT 8.6.0, not 10.3",
        ),
        (
            {"gpus": [{"name": "NVIDIA L4", "sm": "8.9"}]},
            "impossible",
            "needs an NVIDIA GPU of SM 9.0, this machine has SM 8.9",
        ),
        ({"gpus": []}, "impossible", "needs an NVIDIA GPU of SM 9.0, this machine has none"),
    ],
)
def test_why_it_cannot_be_built_is_told(
    bundle: Bundle, changes: Mapping[str, Any], fit: str, reason: str
) -> None:
    assert fits(bundle, deferred.h200(**changes))["h200"] == (fit, reason)


def test_without_building_only_what_is_stored_counts(bundle: Bundle) -> None:
    verdict = fits(bundle, deferred.h200(), build=False)["h200"]
    assert verdict == ("rebuild", "not built on this device yet, and building is switched off")


def test_the_time_of_the_last_build_is_foretold(
    bundle: Bundle, builds: Builds, tmp_path: Path
) -> None:
    for segment in deferred.SEGMENTS:
        finish_segment(bundle, "h200", segment, Workshop(deferred.h200(), tmp_path))
    other = deferred.h200(driver={"version": "560.2", "cuda": "12.6"})
    own = own_engines(bundle, other, Stores().engines)
    assert own["h200", "forward_0"].seconds is not None
    assert "(about 0.0 s: 2 layers)" in own["h200", "forward_0"].reason
    assert fits(bundle, other)["h200"] == (
        "builds",
        "2 engines build here at the first run (about 0.0 s)",
    )
    fit, reason = fits(bundle, deferred.h200())["h200"]
    assert fit == "exact"
    assert reason.startswith("from the store, built on this device ")


# --- loading -------------------------------------------------------------------------------------
def test_the_first_load_builds_and_the_second_does_not(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    told: list[Progress] = []
    first = loaded(bundle.path, on_progress=told.append)
    assert builds.names == ["forward_0", "forward_1"]
    assert (first.variant, first.degraded) == ("h200", False)
    assert first.smoke().passed
    assert {s.kind for s in first.segments()} == {"tensorrt"}
    assert not any(engine.cached for engine in first.own_engines.values())
    texts = [progress.text() for progress in told]
    assert any(t.startswith("building forward_1 (2 of 2): building 50 %, ") for t in texts)
    second = loaded(bundle.path)
    assert builds.names == ["forward_0", "forward_1"]
    assert second.choice.chosen.verdict.reason.startswith("from the store, built ")
    torch.testing.assert_close(second(X), first(X))


def test_engines_built_here_may_run_host_code_and_have_the_weights(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    options = {"options": {"version_compatible": True, "weights": "stripped"}}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=options)
    loaded(path)
    context = on_h200["forward_0"]
    assert context.trust
    assert context.record["options"]["version_compatible"]
    assert set(context.weights) == {"w0", "w1", "unused"}


def test_no_build_runs_in_pytorch(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    assert loaded(bundle.path, build=False).variant == "cpu"
    with pytest.warns(DegradedWarning, match="building is switched off"):
        found = load(bundle.path, target="h200", build=False)
    assert found.degraded
    assert builds.names == []
    loaded(bundle.path)
    assert loaded(bundle.path, build=False).variant == "h200"


def test_a_failing_build_leaves_that_segment_to_pytorch(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    builds.fail["forward_1"] = EngineBuildError("forward_1: no tactic", hint="x")
    with pytest.warns(DegradedWarning, match="forward_1 runs in PyTorch.*no tactic"):
        found = load(bundle.path)
    assert found.degraded
    assert [s.kind for s in found.segments()] == ["tensorrt", "reference"]
    assert found.failed_engines == {"forward_1": "forward_1: no tactic"}
    assert found.smoke().passed
    with pytest.raises(EngineBuildError, match="no tactic"):
        load(bundle.path, strict=True)
    assert builds.names == ["forward_0", "forward_1", "forward_1"]


def test_rebuild_builds_anew(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    loaded(bundle.path)
    again = loaded(bundle.path, rebuild=True)
    assert builds.names == ["forward_0", "forward_1"] * 2
    assert not any(engine.cached for engine in again.own_engines.values())


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
    with read_only_disk(tmp_path / "cache"):
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


def test_a_bundle_cannot_put_another_content_into_the_store(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    lie = {"content": "a" * 64}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=lie)
    with pytest.raises(BundleError, match="is said to compute aaaaaaaaaaaa") as caught:
        load(path)
    assert caught.value.wants == "a" * 64
    assert builds.names == []


def test_other_weights_are_another_engine(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    loaded(deferred.write(tmp_path / "one.tar", variants=("h200",)))
    loaded(deferred.write(tmp_path / "two.tar", variants=("h200",), scale=2.0))
    loaded(deferred.write(tmp_path / "three.tar", variants=("h200",)))
    assert len(builds.names) == 4


def test_the_gpu_is_left_out_where_another_device_is_asked_for(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "GPU", "meta")
    found = loaded(bundle.path, device="cpu")
    assert (found.variant, found.device.type, builds.names) == ("cpu", "cpu", [])
    found = loaded(bundle.path)
    assert (found.variant, found.device.type) == ("h200", "meta")


def test_the_gpu_that_is_asked_for_is_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = [*deferred.ada()["gpus"], {**deferred.h200()["gpus"][0], "index": 1}]
    gpus[0] = {**gpus[0], "index": 0}
    monkeypatch.setattr(placement, "facts", lambda: deferred.h200(gpus=list(gpus)))
    for device, wanted in (("cuda", [0, 1]), ("cuda:0", [0, 1]), ("cuda:1", [1, 0])):
        found = placement.facts_for(torch.device(device))["gpus"]
        assert [gpu["index"] for gpu in found] == wanted


def test_a_pytorch_without_cuda_is_told(
    bundle: Bundle, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "facts", deferred.h200)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(DegradedWarning, match="cannot use the GPU of this machine"):
        load(bundle.path, target="h200")
    assert loaded(bundle.path).variant == "cpu"
    assert builds.names == []


def test_options_that_are_absent_are_those_by_default(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    whole = {"options": BuildOptions().to_json()}
    loaded(deferred.write(tmp_path / "one.tar", variants=("h200",)))
    loaded(deferred.write(tmp_path / "two.tar", variants=("h200",), engines=whole))
    assert len(builds.names) == 2
    other = {"options": {"optimization_level": 5}}
    loaded(deferred.write(tmp_path / "three.tar", variants=("h200",), engines=other))
    assert len(builds.names) == 4


@pytest.mark.parametrize(
    "engine", [{"options": {"flags": 3}}, {"record": {"options": 3}}], ids=["own", "record"]
)
def test_options_that_are_none_are_refused(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext], engine: dict[str, Any]
) -> None:
    path = deferred.write(tmp_path / "one.tar", variants=("h200",), engines=engine)
    with pytest.raises(BundleError, match="malformed build options of forward_0"):
        load(path)


def test_weights_that_only_engines_read_stay_on_the_host(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "GPU", "meta")
    monkeypatch.setattr(tensorrt, "load", lambda blob, context: lambda inputs: list(inputs))
    builds.fail["forward_1"] = EngineBuildError("no tactic")
    with pytest.warns(DegradedWarning):
        found = load(bundle.path)
    where = {name: value.device.type for name, value in found.state_dict().items()}
    assert where == {"w0": "cpu", "w1": "meta", "unused": "cpu"}


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


# --- tactics -------------------------------------------------------------------------------------
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
        assert not finish_segment(bundle, "h200", "forward_0", shop).cached
        assert stores.tactics.read(key) is not None
    else:
        with pytest.raises(EngineBuildError, match="1 of 1 locked tactics changed, first a: 0x1"):
            finish_segment(bundle, "h200", "forward_0", shop)
        assert stores.tactics.read(key) is None
        assert stores.engines.entries() == []
    assert seeds == [b"locked"]


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


# --- trtpack finish ------------------------------------------------------------------------------
def test_a_finished_bundle_is_used_directly(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = finished(bundle, tmp_path / "finished.tar", deferred.h200())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another device"))
    used = loaded(found.bundle.path)
    assert (used.variant, used.own_engines) == ("h200", {})
    assert used.choice.chosen.verdict.fit == "exact"
    assert builds.names == ["forward_0", "forward_1"]
    assert used.smoke().passed
    found.bundle.verify()
    for name, entry in bundle.entries.items():
        assert found.bundle.entries[name] == entry


def test_a_bundle_is_finished_in_its_place(bundle: Bundle, builds: Builds) -> None:
    found = finished(bundle, bundle.path, deferred.h200())
    refs = open_bundle(bundle.path, verify="full").manifest.variants["h200"].engines
    assert {ref.member for ref in refs.values()} == {
        f"engines/h200/{name}.plan" for name in deferred.SEGMENTS
    }
    assert all(ref.deferred is None for ref in refs.values())
    again = finished(found.bundle, bundle.path, deferred.h200())
    assert (again.engines, again.ready) == ({}, ("cpu", "h200"))
    assert again.bundle.digest == found.bundle.digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tensorrt": None}, "h200: TensorRT is not installed"),
        ({"gpus": []}, "h200: there is no NVIDIA GPU"),
        (
            {"gpus": [{"name": "NVIDIA L4", "sm": "8.9"}]},
            r"h200: NVIDIA L4 is SM 8\.9, not 9\.0",
        ),
        ({"tensorrt": "8.6.0"}, r"h200: this machine has TensorRT 8\.6\.0, not 10\.3"),
    ],
)
def test_nothing_can_be_built_here(
    bundle: Bundle, builds: Builds, tmp_path: Path, changes: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(DeviceError, match=reason):
        finished(bundle, tmp_path / "out.tar", deferred.h200(**changes))
    assert not (tmp_path / "out.tar").exists()
    assert builds.names == []


def test_a_place_that_cannot_be_written_is_told_before_the_build(
    bundle: Bundle, builds: Builds, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        finished(bundle, tmp_path / "none" / "out.tar", deferred.h200())
    with pytest.raises(ConfigError, match="it is a folder"):
        finished(bundle, tmp_path, deferred.h200())
    with pytest.raises(ConfigError, match="no variant 'h20'"):
        finished(bundle, tmp_path / "out.tar", deferred.h200(), target="h20")
    assert builds.names == []


def test_a_version_compatible_plan_of_another_machine_needs_trust(
    tmp_path: Path,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"options": {"version_compatible": True}}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=options)
    found = finished(open_bundle(path), tmp_path / "finished.tar", deferred.h200())
    plan = found.bundle.entries["engines/h200/forward_0.plan"]
    assert trusted(plan.sha256)
    assert loaded(found.bundle.path).own_engines == {}
    assert on_h200["forward_0"].trust
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    with pytest.warns(DegradedWarning, match="--trust loads it"):
        assert load(found.bundle.path, target="h200", build=False).degraded
    own = loaded(found.bundle.path)
    assert set(own.own_engines) == set(deferred.SEGMENTS)  # built anew rather than trusted
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    assert loaded(found.bundle.path, trust=True).own_engines == {}


# --- for real ------------------------------------------------------------------------------------
@pytest.fixture
def rtx(tmp_path: Path) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    return deferred.write(tmp_path / "rtx.tar")


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_build_once_and_finish_alike(rtx: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.tar", tmp_path / "two.tar"]
    started = [command("finish", rtx, "-o", output, "--json") for output in outputs]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    answers = [json.loads(out) for out, _ in ended]
    for i in range(2):
        sources = sorted(answer["engines"]["ada"][i]["source"] for answer in answers)
        assert sources == ["built", "store"]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    bundle = open_bundle(outputs[0], verify="full")
    ref = bundle.manifest.variants["ada"].engines["forward_0"]
    assert ref.member == "engines/ada/forward_0.plan"
    assert len(bundle.member(ref.member)) > 1000
    here = deferred.ada()
    verdict = engine("tensorrt-rtx").check(ref.record, here)
    assert verdict.fit == "exact"
    assert verdict.reason.endswith("for SM89")


def test_the_weights_are_read_out_of_the_bundle(rtx: Path, tmp_path: Path) -> None:
    plans = []
    for scale in (1.0, 3.0):
        path = deferred.write(tmp_path / f"{scale}.tar", scale=scale)
        shop = Workshop(deferred.ada(), tmp_path)
        found = finish_segment(open_bundle(path), "ada", "forward_0", shop)
        plans.append(found.path.read_bytes())
        value = (deferred.weights()["w0"] * scale).numpy().tobytes()
        assert value in plans[-1] or len(plans[-1]) > 1000
    assert plans[0] != plans[1]


def void(_: object) -> None:
    """Forgets an answer."""
