# SPDX-License-Identifier: Apache-2.0
"""Where a build's tactics come from and go to: store, file, bundle; and what locking proves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.packager.machines import facts, without_gpu
from trtpack import building
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress
from trtpack.report.text import tactics_text
from trtpack.tactic_book import TacticBook, fits, read_tactics
from trtpack.target import find_target
from trtpack.target.native import native_target
from trtpack_runtime import builders
from trtpack_runtime.builders import Outcome, Work
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import BundleError, ConfigError, EngineBuildError
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, from_lock, to_lock

NATIVE = native_target(facts())
KEY = TacticKey.of(facts())
OTHER = TacticKey("10.3.0.30", "8.7", "Orin", 16, "p3701-0005")


def entries(*tactics: str) -> tuple[Mapping[str, Any], ...]:
    return tuple({"key": f"k{i}", "tactic": t, "time_ms": 0.1} for i, t in enumerate(tactics))


class TensorRT:
    """Stands for TensorRT on an H200: an engine and one more tactic a build."""

    def __init__(self) -> None:
        self.known, self.works = builders.BUILDERS["tensorrt"], list[Work]()
        self.fails: EngineBuildError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.known, name)

    def build(self, work: Work, plan: Path, site: Any, on_event: Any) -> Outcome:
        self.works.append(work)
        if self.fails is not None:
            raise self.fails
        plan.write_bytes(b"plan " + work.network.digest().encode())
        cache = (work.tactics or b"cache") + b"+"
        record = {"tensorrt": "8.6.0", "sm": "9.0", "device": "NVIDIA H200"}
        made = entries(*("t" * cache.count(b"+")))
        return Outcome({**record, "os": "linux", "arch": "x86_64"}, cache, made)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorRT:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("trtpack_runtime.device.facts", facts)
    monkeypatch.setattr(building, "facts", facts)
    double = TensorRT()
    monkeypatch.setattr(builders, "BUILDERS", {**builders.BUILDERS, "tensorrt": double})
    return double


def made(path: Path, *targets: str, width: int = 8, **options: Any) -> BuildReport:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Linear(width, 8))
    chosen = Options(targets=targets or ("native",), output=path, min_block_size=1, **options)
    return build((model, (torch.randn(2, 8),)), chosen, Progress())


def test_what_a_build_measured_is_stored_and_travels(tmp_path: Path, tensorrt: TensorRT) -> None:
    report = made(tmp_path / "b.tar", torch_ops=("aten.gelu.default",))
    found = [e for e in report.targets[0].engines if e.kind == "tensorrt"]
    assert [e.tactics and e.tactics.known for e in found] == [None, 1]
    assert [work.tactics for work in tensorrt.works] == [None, b"cache+"]
    known = TacticStore().read(KEY)
    assert known is not None
    assert known.blob == b"cache++"
    bundle = open_bundle(tmp_path / "b.tar")
    cache = bundle.manifest.variants["native"].caches["timing"]
    assert bytes(bundle.member("caches/native/timing.cache")) == b"cache++"
    assert (cache["lock"], TacticKey.from_json(cache["key"])) == (
        "caches/native/timing.lock.json",
        KEY,
    )
    lock = from_lock(bytes(bundle.member(cache["lock"])))
    assert lock.entries == entries("t", "t")
    assert lock.provenance == {"driver": "580.1"}


def test_another_model_begins_with_it(tmp_path: Path, tensorrt: TensorRT) -> None:
    made(tmp_path / "one.tar")
    report = made(tmp_path / "two.tar", width=16)
    (engine,) = report.targets[0].engines
    assert engine.tactics is not None
    assert engine.tactics.known == 1
    assert engine.tactics.age_seconds is not None
    assert "seeded with 1 tactic kept " in " ".join(report.to_text().split())


def test_an_engine_from_the_cache_brings_them_too(tmp_path: Path, tensorrt: TensorRT) -> None:
    made(tmp_path / "one.tar")
    report = made(tmp_path / "two.tar")
    assert report.targets[0].engines[0].cached
    assert len(tensorrt.works) == 1
    member = open_bundle(tmp_path / "two.tar").member("caches/native/timing.cache")
    assert bytes(member) == b"cache+"


def test_without_the_cache_a_build_begins_anew(tmp_path: Path, tensorrt: TensorRT) -> None:
    for _ in range(2):
        made(tmp_path / "b.tar", cache=False)
    assert [work.tactics for work in tensorrt.works] == [None, None]
    assert TacticStore().entries() == []


@pytest.mark.parametrize(
    "named", ["timing.cache", "timing.lock.json", pytest.param("b.tar", marks=pytest.mark.slow)]
)
def test_tactics_are_taken_from_a_file(named: str, tmp_path: Path, tensorrt: TensorRT) -> None:
    made(tmp_path / "b.tar", cache=False)
    (tmp_path / "timing.cache").write_bytes(b"cache+")
    (tmp_path / "timing.lock.json").write_bytes(to_lock(Tactics(KEY, b"cache+", entries("t"))))
    report = made(tmp_path / "two.tar", cache=False, tactics=tmp_path / named)
    assert tensorrt.works[-1].tactics == b"cache+"
    assert "seeded with 1 tactic" in " ".join(report.to_text().split())


def test_an_engine_with_other_tactics_does_not_serve(tmp_path: Path, tensorrt: TensorRT) -> None:
    made(tmp_path / "b.tar")
    for chosen in (b"chosen+", b"edited+"):
        (tmp_path / "timing.cache").write_bytes(chosen)
        (tmp_path / "timing.lock.json").write_bytes(to_lock(Tactics(KEY, chosen, entries("t"))))
        report = made(tmp_path / "two.tar", tactics=tmp_path / "timing.cache")
        assert not report.targets[0].engines[0].cached
        assert tensorrt.works[-1].tactics == chosen
    report = made(tmp_path / "again.tar", tactics=tmp_path / "timing.cache")
    assert report.targets[0].engines[0].cached
    bundle = open_bundle(tmp_path / "two.tar")
    assert bytes(bundle.member("caches/native/timing.cache")) == b"edited++"
    assert bundle.manifest.variants["native"].caches["timing"]["chosen"] is True
    report = made(tmp_path / "three.tar")
    assert report.targets[0].engines[0].cached
    assert len(tensorrt.works) == 3
    unasked = open_bundle(tmp_path / "three.tar").manifest.variants["native"].caches["timing"]
    assert "chosen" not in unasked


def test_a_locked_engine_is_proved_each_time(
    tmp_path: Path, tensorrt: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer() -> dict[str, Any]:
        return facts(tensorrt="10.16.2")

    monkeypatch.setattr("trtpack_runtime.device.facts", newer)
    monkeypatch.setattr(building, "facts", newer)
    key = TacticKey.of(newer())
    TacticStore().put(key, Tactics(key, b"cache+", entries("t")))
    for count in (1, 2):
        report = made(tmp_path / "b.tar", locked=True)
        assert "tactics as locked (" in " ".join(report.to_text().split())
        assert len(tensorrt.works) == count


def test_tactics_of_another_gpu_of_the_same_sm_are_refused(
    tmp_path: Path, tensorrt: TensorRT
) -> None:
    sibling = dataclasses.replace(KEY, device="NVIDIA H100")
    (tmp_path / "timing.cache").write_bytes(b"cache")
    (tmp_path / "timing.lock.json").write_bytes(to_lock(Tactics(sibling, b"cache")))
    with pytest.raises(ConfigError, match=r"of NVIDIA H100 .*: native \(NVIDIA H200 \(SM 9\.0"):
        made(tmp_path / "b.tar", tactics=tmp_path / "timing.cache")
    assert tensorrt.works == []
    report = made(tmp_path / "b.tar", defer=True, tactics=tmp_path / "timing.cache")
    assert "to begin with an opaque cache of 5 " in " ".join(report.to_text().split())


def test_a_cache_alone_is_taken_for_this_machines(tmp_path: Path) -> None:
    (tmp_path / "my").write_bytes(b"opaque")
    (tactics,) = read_tactics(tmp_path / "my", facts())
    assert tactics == Tactics(KEY, b"opaque")
    with pytest.raises(ConfigError, match=r"/my\.lock\.json, the lock file, which says what"):
        read_tactics(tmp_path / "my", without_gpu())


def test_what_holds_no_tactics_is_refused(tmp_path: Path, tensorrt: TensorRT) -> None:
    made(tmp_path / "b.tar", "cpu", engine="reference")
    with pytest.raises(ConfigError, match="holds neither a timing cache nor"):
        read_tactics(tmp_path / "b.tar", facts())
    (tmp_path / "timing.cache").write_bytes(b"cache")
    (tmp_path / "timing.lock.json").write_text("{}")
    with pytest.raises(BundleError):
        read_tactics(tmp_path / "timing.cache", facts())
    (tmp_path / "alone.lock.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"alone\.cache"):
        read_tactics(tmp_path / "alone.lock.json", facts())


def test_tactics_of_another_device_are_refused_in_words(tmp_path: Path, tensorrt: TensorRT) -> None:
    (tmp_path / "timing.cache").write_bytes(b"cache")
    (tmp_path / "timing.lock.json").write_bytes(to_lock(Tactics(OTHER, b"cache")))
    with pytest.raises(ConfigError, match=r"of Orin \(SM 8\.7, .* TensorRT 10\.3\.0\.30, .*nat"):
        made(tmp_path / "b.tar", tactics=tmp_path / "timing.cache")
    assert tensorrt.works == []
    with pytest.raises(ConfigError, match=r"none of the targets: h200 \(SM 9\.0, TensorRT 10\.16"):
        made(tmp_path / "b.tar", "h200", tactics=tmp_path / "timing.cache")


def test_a_target_that_builds_its_own_gets_what_fits_it(tmp_path: Path, tensorrt: TensorRT) -> None:
    TacticStore().put(KEY, Tactics(KEY, b"of an H200"))
    TacticStore().put(OTHER, Tactics(OTHER, b"of an Orin", entries("a", "b")))
    report = made(tmp_path / "b.tar", "orin", "orin@jetpack-7.2")
    text = " ".join(report.to_text().split())
    assert "at its first run; to begin with 2 tactics of the bundle" in text
    assert "not run on hardware" not in text
    bundle = open_bundle(tmp_path / "b.tar")
    assert bytes(bundle.member("caches/orin/timing.cache")) == b"of an Orin"
    assert bundle.manifest.variants["orin@jetpack-7.2"].caches == {}


def test_tactics_fit_an_sm_and_a_release() -> None:
    assert fits(OTHER, find_target("orin@jetpack-6.2"))
    assert not fits(KEY, find_target("orin@jetpack-6.2"))
    assert not fits(dataclasses.replace(OTHER, tensorrt="10.7.0"), find_target("orin"))


def book(known: Tactics | None, tmp_path: Path, **options: Any) -> TacticBook:
    store = TacticStore(tmp_path / "tactics")
    if known is not None:
        assert store.put(known.key, known)
    return TacticBook(Options(targets=(), **options), facts(), store)


def test_locked_needs_tactics(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tactics to lock native to .* NVIDIA H200"):
        book(None, tmp_path, locked=True).known(NATIVE)
    assert book(None, tmp_path).known(NATIVE) is None


def test_a_device_cannot_be_locked_to_nothing(tmp_path: Path) -> None:
    orin = find_target("orin")
    with pytest.raises(ConfigError, match=r"no tactics to lock orin to .* SM 8\.7"):
        book(None, tmp_path, locked=True).left_to(orin)
    for measured in (True, False):
        edited = Tactics(OTHER, b"cache", measured=measured)
        use = book(edited, tmp_path, locked=True).left_to(orin)
        assert use is not None
        assert (use.nbytes, use.on_hardware, use.locked) == (5, measured, True)
        assert tactics_text(use, deferred=True).startswith("locked to an opaque cache of 5 ")
    use = book(Tactics(OTHER, b"cache"), tmp_path).left_to(orin)
    assert use is not None
    assert tactics_text(use, deferred=True).startswith("to begin with an opaque cache of 5 ")


def test_locked_proves_that_none_changed(tmp_path: Path) -> None:
    kept = book(Tactics(KEY, b"cache", entries("a", "b")), tmp_path, locked=True)
    use = kept.learnt(NATIVE, Outcome({}, b"other bytes", entries("a", "b")))
    assert use is not None
    assert (use.known, use.locked, use.unchanged) == (2, True, 2)


def test_edited_tactics_are_proved_by_a_build_with_them(tmp_path: Path) -> None:
    edited = Tactics(KEY, b"cache", ({**entries("a")[0], "layer": "conv1"},), measured=False)
    kept = book(edited, tmp_path, locked=True)
    use = kept.learnt(NATIVE, Outcome({}, b"after", entries("a")))
    assert use is not None
    assert (use.unchanged, use.on_hardware) == (1, False)
    found = kept.for_bundle(NATIVE, built_here=True)
    assert found is not None
    assert found.measured
    assert TacticStore(tmp_path / "tactics").read(KEY) == found
    assert found.entries == edited.entries  # the layer's name is known from before


@pytest.mark.parametrize("now", [("a", "c"), ("a",)], ids=["another", "gone"])
def test_locked_fails_where_one_did(now: tuple[str, ...], tmp_path: Path) -> None:
    before = Tactics(KEY, b"cache", entries("a", "b"))
    kept = book(before, tmp_path, locked=True)
    with pytest.raises(EngineBuildError, match="1 of 2 locked tactics changed, first k1: b became"):
        kept.learnt(NATIVE, Outcome({}, b"new", entries(*now)))
    assert TacticStore(tmp_path / "tactics").read(KEY) == before


def test_an_opaque_cache_proves_nothing(tmp_path: Path) -> None:
    kept = book(Tactics(KEY, b"cache"), tmp_path, locked=True)
    use = kept.learnt(NATIVE, Outcome({}, b"cache", None))
    assert use is not None
    assert (use.known, use.locked, use.unchanged, use.nbytes) == (None, True, None, 5)


def test_a_locked_build_does_not_blame_layers(
    tmp_path: Path, tensorrt: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tactic that is missing from the cache is no fault of a layer."""

    def newer() -> dict[str, Any]:
        return facts(tensorrt="10.3.0.26")

    monkeypatch.setattr("trtpack_runtime.device.facts", newer)
    monkeypatch.setattr(building, "facts", newer)
    key = TacticKey.of(newer())
    TacticStore().put(key, Tactics(key, b"cache"))
    tensorrt.fails = EngineBuildError("cache miss", layers=("1/gelu",))
    with pytest.raises(EngineBuildError, match="cache miss"):
        made(tmp_path / "b.tar", locked=True)
    (work,) = tensorrt.works
    assert (work.options["locked"], work.tactics) == (True, b"cache")
