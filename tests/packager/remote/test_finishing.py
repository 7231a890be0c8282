# SPDX-License-Identifier: Apache-2.0
"""Engines built on a device over SSH: there and back, cut off, two hosts at once."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from trtpack.remote import finishing
from trtpack.remote.device import ConnectionLost, Device
from trtpack.remote.finishing import Finishing, Stores
from trtpack.remote.login import Login, take_lease
from trtpack.remote.ssh import UnreachableError
from trtpack.report import SmokeOnDevice
from trtpack_runtime.bundle import Member, open_bundle
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.tactics import TacticKey, Tactics, from_lock, to_lock

from . import devices
from .building import VARIANT, Host, Knife, Watched, with_tensorrt
from .sshd import Server

SEGMENTS = list(deferred.SEGMENTS)
_EVENTS, _EVENTS_OF_ONE, _DELAY_S = 13, 5, 0.4
"""What is told until the last engine is being built, of two that are to be and of one; how long its
build takes at the least."""

PLANS = [f"engines/{VARIANT}/{segment}.plan" for segment in SEGMENTS]


def finished(path: Path) -> bool:
    """Whether a bundle has all its engines, and they are whole."""
    bundle = open_bundle(path)
    bundle.verify()
    return all(plan in bundle.entries for plan in PLANS)


def test_engines_and_tactics_come_back(device: Server, tmp_path: Path) -> None:
    with_tensorrt(device)
    host = Host(device, tmp_path / "host")
    done = host.finishing().run(tmp_path / "failed.tar")
    report, engines = done.report, done.engines
    assert [segment for _, segment in engines] == host.built == SEGMENTS
    assert any("timing" in text for text in host.progress.said)  # while it was built there
    bundle = open_bundle(host.bundle)
    assert finished(host.bundle)
    refs = bundle.manifest.variants[VARIANT].engines
    assert {ref.record["device"] for ref in refs.values() if ref.record} == {"NVIDIA H200"}
    lock = bytes(bundle.member(f"caches/{VARIANT}/timing.lock.json"))
    assert from_lock(lock).key == TacticKey.of(report.facts)
    assert host.tactics.read(TacticKey.of(report.facts)) is not None
    assert report.smoke[VARIANT].verdict == "not run"
    assert "no numpy" in report.smoke[VARIANT].told
    assert (report.facts["python"], report.facts["torch"]) == (report.facts["python"], None)
    assert report.before["readings"] == report.after["readings"] == {}


@pytest.mark.slow
def test_what_was_built_before_is_not_even_sent_there(device: Server, tmp_path: Path) -> None:
    with_tensorrt(device)
    host = Host(device, tmp_path / "host")
    host.finishing().run(tmp_path / "failed.tar")
    content = host.bundle.read_bytes()
    deferred.write(host.bundle, variants=(VARIANT,))
    host.progress.steps.clear()
    engines = host.finishing().run(tmp_path / "failed.tar").engines
    assert host.progress.steps == []
    assert all(engine.cached for engine in engines.values())
    assert host.bundle.read_bytes() == content


@pytest.mark.slow
def test_a_build_begins_with_the_bundles_tactics_then_with_this_hosts(
    device: Server, tmp_path: Path
) -> None:
    with_tensorrt(device)
    first = Host(device, tmp_path / "first")
    key = TacticKey.of(first.finishing().run(tmp_path / "failed.tar").report.facts)
    good = first.tactics.read(key)
    assert good is not None
    cache, lock = f"caches/{VARIANT}/timing.cache", f"caches/{VARIANT}/timing.lock.json"
    carried = {
        "caches": {"timing": {"member": cache, "lock": lock, "key": key.to_json()}},
        "extra": (Member(cache, good.blob), Member(lock, to_lock(good))),
    }
    for name, parts, refused in (("of-bundle", carried, False), ("of-host", {}, True)):
        host = Host(device, tmp_path / name)
        host.tactics.put(key, Tactics(key, b"no timing cache at all"), lambda blobs: blobs[-1])
        deferred.write(host.bundle, variants=(VARIANT,), **parts)  # type: ignore[arg-type]  # parts of a bundle
        engines = host.finishing().run(tmp_path / "failed.tar").engines
        assert (engines[VARIANT, SEGMENTS[0]].refused_tactics is not None) == refused


@pytest.mark.slow
def test_the_smoke_test_finds_engines_built_now_and_before(
    device: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``trtpack resolve`` stands for the smoke test, which needs a GPU: it says what would run."""
    with_tensorrt(device)

    def resolve(there: Device, bundle: str, variant: str) -> SmokeOnDevice:
        out: list[bytes] = []
        words = ["resolve", bundle, "--json"]
        there.ask("execute", lambda message, data: out.append(data), arguments=words)
        variants = {v["variant"]: v for v in json.loads(b"".join(out))["variants"]}
        return SmokeOnDevice("passed", str(variants[variant]["fit"]), variants[variant])

    monkeypatch.setattr(finishing, "cannot_smoke", lambda hello: None)
    monkeypatch.setattr(finishing, "run_smoke", resolve)
    host = Host(device, tmp_path / "host")
    for cached in (False, True):
        deferred.write(host.bundle, variants=(VARIANT,))
        done = host.finishing().run(tmp_path / "failed.tar")
        assert [engine.cached for engine in done.engines.values()] == [cached] * len(SEGMENTS)
        assert done.report.smoke[VARIANT].told == "exact"
        reasons = [e["reason"] for e in done.report.smoke[VARIANT].report["engines"].values()]
        assert all(reason.startswith("from the store, built") for reason in reasons)


@pytest.mark.slow
def test_a_bare_python_and_tensorrt_rtx_are_enough(device: Server, tmp_path: Path) -> None:
    """A real TensorRT builds there, where nothing else is but the standard library."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    devices.add_gpu(device, "NVIDIA L4", "8.9", 24, 58)
    devices.add_tensorrt_rtx(device)
    bundle = deferred.write(tmp_path / "bundle.tar")
    stores = Stores(EngineStore(tmp_path / "engines"), None)
    login = Login.to(device.on, device.options)
    progress = Watched()
    run = Finishing(login, bundle, ("ada",), stores, tmp_path, progress)
    run.run(tmp_path / "failed.tar")
    refs = open_bundle(bundle).manifest.variants["ada"].engines
    assert {ref.record["tensorrt_rtx"] for ref in refs.values() if ref.record} == {"1.7.1.116"}
    assert any("building engine" in text for text in progress.said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_lost_connection(
    device: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Cut at a random point: nothing is left there, and the next attempt goes on."""
    dice = random.Random(seed)
    how = ("client", "login")[seed % 2]
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    with_tensorrt(device, seconds=_DELAY_S + 0.3)
    host = Host(device, tmp_path / "host")
    before = host.bundle.read_bytes()
    knife = Knife(monkeypatch)

    with monkeypatch.context() as once:
        once.setattr(finishing, "ATTEMPTS", 1)
        host.progress = knife.at(dice.randrange(_EVENTS), dice.uniform(0, _DELAY_S), how)
        with pytest.raises(ConnectionLost, match="the connection to device was lost") as raised:
            host.finishing().run(tmp_path / "failed.tar")
    assert raised.value.hint
    assert host.bundle.read_bytes() == before
    assert device.settled() == ["home", "tmp"]  # the lease too

    built = len(host.engines.entries())
    host.progress = knife.at(dice.randrange(_EVENTS_OF_ONE), dice.uniform(0, _DELAY_S), how)
    done = host.finishing().run(tmp_path / "failed.tar")
    report, engines = done.report, done.engines
    assert report.lost == len(knife.cuts) - 1 == 1
    assert len(engines) == len(SEGMENTS)
    assert sum(engine.cached for engine in engines.values()) >= built
    assert finished(host.bundle)


@pytest.mark.slow
def test_a_connection_that_is_lost_again_and_again(
    device: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    with_tensorrt(device)
    knife = Knife(monkeypatch)

    def cut(name: str) -> None:
        if "send" in name:
            knife.cut("client")

    host = Host(device, tmp_path / "host", Watched(cut))
    with pytest.raises(ConnectionLost):
        host.finishing().run(tmp_path / "failed.tar")
    assert len(knife.cuts) == finishing.ATTEMPTS
    assert device.settled() == ["home", "tmp"]


def test_a_device_that_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was there comes back; one that never was is told at once."""
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    bundle = deferred.write(tmp_path / "bundle.tar", variants=(VARIANT,))
    login, stores = Login.to("ssh://orin"), Stores(EngineStore(tmp_path / "engines"), None)
    away: list[Exception] = [ConnectionLost("gone"), UnreachableError("no"), UnreachableError("no")]

    def once(run: Finishing) -> dict[str, Any]:
        if errors:
            raise errors.pop(0)
        return {}

    monkeypatch.setattr(Finishing, "_once", once)
    for first, lost in ((0, 1), (1, None)):
        errors = away[first:]
        run = Finishing(login, bundle, (VARIANT,), stores, tmp_path, Watched())
        if lost is None:
            with pytest.raises(UnreachableError):
                run.run(tmp_path / "failed.tar")
        else:
            assert run.run(tmp_path / "failed.tar").report.lost == lost


@pytest.mark.slow
def test_two_hosts_one_waits(
    device: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_tensorrt(device, seconds=2)
    began, reports = threading.Event(), dict[str, Any]()

    def on_step(name: str) -> None:
        if "engine of" in name:
            began.set()

    first = Host(device, tmp_path / "first", Watched(on_step))
    second = Host(device, tmp_path / "second")

    def finish(host: Host, name: str) -> None:
        reports[name] = host.finishing().run(tmp_path / "failed.tar").report

    other = threading.Thread(target=finish, args=(first, "first"))
    other.start()
    assert began.wait(30)
    finish(second, "second")
    other.join()
    assert reports["first"].waited_s < 0.5 < reports["second"].waited_s
    (waiting,) = {text for text in second.progress.said if text.startswith("waiting")}
    assert "which builds layers for about" in waiting
    assert f"device: {waiting}" in caplog.messages  # also where no terminal shows it
    assert finished(first.bundle)
    assert finished(second.bundle)


@pytest.mark.slow
def test_a_host_that_does_not_wait_for_ever(device: Server, tmp_path: Path) -> None:
    with_tensorrt(device)
    login = Login.to(device.on, device.options)
    with login.device() as there:
        take_lease(there, login, "builds another", print)
        host = Host(device, tmp_path / "host", lease_timeout_s=0.3)
        with pytest.raises(DeviceError, match=r"device: \S+ \(process \d+\) has held this device"):
            host.finishing().run(tmp_path / "failed.tar")
        assert device.lease.exists()


@pytest.mark.slow
def test_what_tensorrt_refuses_there_is_told_here(device: Server, tmp_path: Path) -> None:
    with_tensorrt(device)
    with (device.packages / "tensorrt" / "__init__.py").open("a") as file:
        file.write("\nraise ImportError('libnvinfer.so.10 is missing')\n")
    host = Host(device, tmp_path / "host")
    before = host.bundle.read_bytes()
    with pytest.raises((DeviceError, EngineBuildError), match=r"libnvinfer\.so\.10 is missing"):
        host.finishing().run(tmp_path / "failed.tar")
    assert host.bundle.read_bytes() == before
