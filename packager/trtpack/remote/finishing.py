# SPDX-License-Identifier: Apache-2.0
"""Builds the engines of a bundle on a device and brings them into it.

Each engine is fetched as soon as it is built, into the store of this host, where it is found by
what it was built of and on. So a lost connection costs the engine that was being built, and the
next build for that device nothing at all.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import BUILDERS
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device_tactics import keep_tactics
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import BuildCancelled, BuildKilled, EngineBuildError
from trtpack_runtime.finish import Finished
from trtpack_runtime.finish_bundle import write_finished
from trtpack_runtime.network import Network
from trtpack_runtime.progress import Progress as Told
from trtpack_runtime.segment_jobs import about_engine, buildable, segment_job, usable
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, from_lock

from ..bisect import offending_layers, said
from ..convert import node_of
from ..engines import progress_text
from ..report import DeviceReport, Progress, SmokeOnDevice, Step
from ..report.text import size_text
from .checks import check_room
from .cooling import COOL_BELOW_C, cool_down
from .device import ConnectionLost, Device
from .login import Login, take_lease
from .smoke import cannot_smoke, failure, run_smoke
from .ssh import UnreachableError

_LOG = logging.getLogger("trtpack.remote")

ATTEMPTS = 5
"""How often in a row a build is tried on a connection that is lost, without an engine meanwhile."""

_PAUSE_S = (1.0, 5.0, 15.0, 30.0)
_BUNDLE = "bundle.tar"


def pause(tries: int) -> None:
    """Waits before a device that was lost is looked for again; longer each time."""
    time.sleep(_PAUSE_S[min(tries, len(_PAUSE_S)) - 1])


@dataclass(frozen=True)
class Stores:
    """Where this host keeps what devices built and measured, None where it does not."""

    engines: EngineStore
    tactics: TacticStore | None


@dataclass
class _State:
    """What is done, whichever connection did it."""

    engines: dict[tuple[str, str], Finished] = field(default_factory=dict)
    tactics: dict[str, Tactics] = field(default_factory=dict)
    smoke: dict[str, SmokeOnDevice] = field(default_factory=dict)
    refused: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    waited_s: float = 0.0
    cooled_s: float = 0.0
    lost: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a bundle: the ``report``, and its ``engines`` by variant and segment.

    ``refused`` is what the device's TensorRT fails on, variant and segment -> graph node -> reason;
    with that the bundle is as it was, and is to be planned again.
    """

    report: DeviceReport
    engines: Mapping[tuple[str, str], Finished]
    refused: Mapping[tuple[str, str], Mapping[str, str]]


class Finishing:
    """One bundle and the device that builds for it.

    Args:
        login: the device.
        bundle: the bundle that leaves engines to it; it is written anew.
        variants: those of its variants that the device is.
        stores: where engines and tactics are kept.
        folder: where files may be put meanwhile.
        progress: told every step.
        cool_below_c: the GPU temperature from which the device is left to cool before a build.
        failed: variant and segment -> the graph nodes that were refused before; None where
            the layers that TensorRT fails on are not searched for, and its error is raised.
        has_lease: whether this host has the device already, by another connection.
    """

    def __init__(
        self,
        login: Login,
        bundle: Path,
        variants: Sequence[str],
        stores: Stores,
        folder: Path,
        progress: Progress,
        cool_below_c: float = COOL_BELOW_C,
        failed: Mapping[tuple[str, str], Collection[str]] | None = None,
        has_lease: Callable[[], bool] = lambda: False,
    ) -> None:
        self._failed, self._has_lease = failed, has_lease
        self._login, self._bundle, self._stores = login, open_bundle(bundle), stores
        self._folder, self._progress, self._cool_below_c = folder, progress, cool_below_c
        self._wanted = [
            (variant, segment)
            for variant in variants
            for segment, ref in sorted(buildable(self._bundle, variant).items())
            if ref.kind in BUILDERS and ref.member is None
        ]
        self._variants, self._state = tuple(variants), _State()
        self._there: set[tuple[str, str]] = set()  # what this connection's device has built

    def run(self, failed: Path) -> Outcome:
        """Finishes the bundle.

        A bundle that computes something else there is moved to ``failed``.

        Raises:
            TrtpackError: an engine could not be built, the device cannot be used, the connection
                was lost again and again, or the smoke test failed.
        """
        state, tries = self._state, 0
        while True:
            done = len(state.engines)
            try:
                facts = self._once()
                break
            except (ConnectionLost, UnreachableError) as lost:
                if isinstance(lost, UnreachableError) and not state.lost:
                    raise  # it was never there
                state.lost += isinstance(lost, ConnectionLost)
                tries = 1 if len(state.engines) > done else tries + 1
                if tries >= ATTEMPTS:
                    raise
                _LOG.warning("%s; trying again", lost.message)
                with self._progress.step(f"connect to {self._login.address} again"):
                    pause(tries)
        engines = {
            variant: tuple(f for (v, _), f in sorted(state.engines.items()) if v == variant)
            for variant, _ in state.engines
        }
        path = self._bundle.path
        if engines and not state.refused:
            write_finished(self._bundle, path, engines, state.tactics)
        report = DeviceReport(
            str(self._login.address),
            dict(facts),
            state.before,
            state.after,
            state.waited_s,
            state.cooled_s,
            state.lost,
            state.smoke,
            tuple(state.notes),
        )
        for variant, smoke in state.smoke.items():
            if smoke.verdict == "failed":
                path.replace(failed)
                raise failure(variant, str(self._login.address), smoke, failed)
        return Outcome(report, state.engines, state.refused)

    def _once(self) -> Mapping[str, Any]:
        """Whatever is left to do, on one connection; the device's facts."""
        state, at = self._state, self._login.address
        with self._login.device() as device:
            facts = device.hello.facts
            self._there.clear()
            for key in self._wanted:
                if key not in state.engines and (known := self._known(key, facts)) is not None:
                    state.engines[key] = known
            why = cannot_smoke(device.hello)
            for variant in self._variants if why is not None else ():
                state.smoke[variant] = SmokeOnDevice("not run", why or "")
            left = [key for key in self._wanted if key not in state.engines]
            unproved = [variant for variant in self._variants if variant not in state.smoke]
            if not left and not unproved:
                return facts
            check_room(device.hello, self._bundle.path.stat().st_size, at)
            with self._progress.step(f"have {at} for this build") as step:
                if not self._has_lease():
                    self._take_lease(device, step)
                state.before = state.before or device.ask("condition")
            self._ship(device)
            for key in left:
                self._build(device, key)
            for variant in unproved if not state.refused else ():
                with self._progress.step(f"{variant}: smoke test on {at}"):
                    self._adopt(device, variant)
                    state.smoke[variant] = run_smoke(device, _BUNDLE, variant)
            state.after = device.ask("condition")
            return facts

    def _take_lease(self, device: Device, step: Step) -> None:
        at = self._login.address

        def waiting(text: str) -> None:
            _LOG.warning("%s: %s", at, text)
            step.detail(text)

        task = f"builds {self._bundle.manifest.name}"
        self._state.waited_s += take_lease(device, self._login, task, waiting)["waited_s"]

    def _known(self, key: tuple[str, str], facts: Mapping[str, Any]) -> Finished | None:
        """The engine of a segment that the device built before."""
        job = segment_job(self._bundle, *key)
        digest = job.key(facts)
        found = usable(self._stores.engines.get(digest), job.ref.kind, facts)
        if found is None:
            return None
        if job.ref.kind == "tensorrt" and self._stores.tactics is not None:
            mine = self._stores.tactics.read(TacticKey.of(facts))
            if mine is not None:
                self._state.tactics.setdefault(key[0], mine)
        return Finished(
            key[1],
            job.ref.kind,
            found.path,
            found.record,
            True,
            found.seconds,
            found.built_at,
            digest,
        )

    def _ship(self, device: Device) -> None:
        size = self._bundle.path.stat().st_size
        with self._progress.step(f"send {size_text(size)} to {device.address}") as step:
            device.put(self._bundle.path, _BUNDLE, step.update)

    def _build(self, device: Device, key: tuple[str, str]) -> None:
        variant, segment = key
        facts, state = device.hello.facts, self._state
        with self._progress.step(f"{variant}: engine of {segment} on {device.address}") as step:
            self._cool(device, step)
            seed = self._seed(device, variant)

            def told(message: Mapping[str, Any], _: bytes) -> None:
                step.detail(progress_text(Told(**message["progress"])))

            try:
                made = device.ask(
                    "build", told, bundle=_BUNDLE, variant=variant, segment=segment, seed=seed
                )
            except (BuildCancelled, BuildKilled):
                raise
            except EngineBuildError as error:
                if not self._refuse(device, key, error, step):
                    raise
                return
            step.detail("fetch it")
            path = self._folder / f"{variant}-{segment}.plan"
            device.get(made["plan"], path)
            learnt = self._fetch_tactics(device, variant, made["tactics"])
        about = about_engine(segment_job(self._bundle, *key), facts)
        self._stores.engines.put(
            made["key"], path, made["record"], about=about, seconds=made["seconds"]
        )
        self._there.add(key)
        state.engines[key] = Finished(
            segment,
            made["kind"],
            path,
            made["record"],
            False,
            made["seconds"],
            time.time(),
            made["key"],
            learnt,
            made["refused_tactics"],
        )

    def _refuse(
        self, device: Device, key: tuple[str, str], error: EngineBuildError, step: Step
    ) -> bool:
        """Notes the graph nodes whose layers the device's TensorRT fails on; whether any is new."""
        variant, segment = key
        if self._failed is None:
            return False
        network, parts = segment_job(self._bundle, variant, segment).portable, itertools.count(1)

        def attempt(part: Network) -> None:
            step.detail(f"find what fails: part {next(parts)}, {len(part.layers)} layers")
            device.put(part.to_bytes(), "part.json", lambda sent, size: None)
            device.ask(
                "probe", bundle=_BUNDLE, variant=variant, segment=segment, network="part.json"
            )

        nodes = {node_of(layer) for layer in offending_layers(network, error, attempt)}
        if not nodes - set(self._failed.get(key, ())):
            return False
        release = device.hello.facts.get("tensorrt") or device.hello.facts.get("tensorrt_rtx")
        text = said(error, f"{device.address}: {segment}")
        reason = f"TensorRT {release} of {device.address} refused it: {text}"
        self._state.refused[key] = dict.fromkeys(sorted(nodes), reason)
        return True

    def _cool(self, device: Device, step: Step) -> None:
        """Waits until the device is cool enough to measure anything on."""
        waited_s, hot = cool_down(device, self._cool_below_c, step.detail)
        self._state.cooled_s += waited_s
        if hot is not None:
            self._state.notes.append(f"{hot}: its tactics were measured hot")

    def _seed(self, device: Device, variant: str) -> str | None:
        """Gives the device what this host knows of its tactics; the file's name there."""
        known = self._state.tactics.get(variant)
        if known is None and self._stores.tactics is not None:
            described = self._bundle.manifest.variants[variant]
            if described.target.get("kind") == "tensorrt":
                key = TacticKey.of(device.hello.facts)
                carried = described.caches.get("timing", {}).get("key")
                known = None if carried == key.to_json() else self._stores.tactics.read(key)
        if known is None or known.edited:
            return None  # the device begins with what is in the bundle, where that is of its kind
        device.put(known.blob, "seed.cache", lambda sent, size: None)
        return "seed.cache"

    def _fetch_tactics(
        self, device: Device, variant: str, names: Sequence[str] | None
    ) -> Tactics | None:
        if names is None:
            return None
        places = [self._folder / f"{variant}-{name}" for name in names]
        for name, place in zip(names, places, strict=True):
            device.get(name, place)
        learnt = from_lock(places[1].read_bytes(), places[0].read_bytes())
        before = self._state.tactics.get(variant)
        self._state.tactics[variant] = learnt
        if self._stores.tactics is not None:
            used = {None if before is None else before.blob}
            keep_tactics(self._stores.tactics, learnt, used)
        return learnt

    def _adopt(self, device: Device, variant: str) -> None:
        """Gives the device the engines that it has not built on this connection."""
        for (name, segment), made in self._state.engines.items():
            if name != variant or (name, segment) in self._there:
                continue
            device.put(made.path, "adopted.plan", lambda sent, size: None)
            device.ask(
                "adopt",
                bundle=_BUNDLE,
                variant=variant,
                segment=segment,
                plan="adopted.plan",
                record=dict(made.record),
                seconds=made.seconds,
            )
