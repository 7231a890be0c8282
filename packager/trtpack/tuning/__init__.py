# SPDX-License-Identifier: Apache-2.0
"""``--tune``: builds and measures other settings on this machine, or on the device of ``--on``, and
ships what is best.

A candidate is a whole build with other options, so what is shipped is what those flags give. Every
trial stands in a log beside the bundle before the next begins; a tuning that was ended, by SIGKILL
even, goes on from there. The settings as they were given stay unless something is measured to beat
them, twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import BUILDERS
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.device import facts

from ..engine_options import kind_for
from ..engines import cannot_build_here, cannot_measure_here
from ..errors import ConfigError
from ..options import Options
from ..remote import finishing
from ..remote.build import login_of
from ..remote.device import ConnectionLost
from ..remote.measuring import Stay, staying
from ..remote.ssh import UnreachableError
from ..report import BuildReport, Progress, Step
from ..target import Target, find_target
from ..trial_log import check_log, open_log
from .measuring import HERE, Say, Where
from .search import Built, Search
from .space import applied, space
from .suggesting import check_optuna

_LOG = logging.getLogger("trtpack.tuning")

HasLease = Callable[[], bool]
"""Whether this host has the device of ``--on`` at the moment."""

Build = Callable[[Options, Progress, HasLease], BuildReport]


def check_tuning(options: Options) -> None:
    """Refuses tuning options that go with nothing, or that contradict one another.

    Raises:
        ConfigError: it names them.
    """
    if not options.tune:
        given = [
            flag
            for flag, value in (
                ("--trials", options.trials),
                ("--budget-minutes", options.budget_minutes),
            )
            if value is not None
        ]
        if options.optimize != "latency":
            given.append(f"--optimize {options.optimize}")
        if given:
            raise ConfigError(f"{given[0]} is for --tune", hint="add --tune, or leave it away")
        return
    where = options.on or "this machine"
    for flag, is_set in (
        ("--dry-run", options.dry_run),
        ("--defer", options.defer),
        ("--locked", options.locked),
    ):
        if is_set:
            raise ConfigError(
                f"--tune measures engines on {where}, which {flag} does not let it",
                hint=f"leave {flag} away, or --tune",
            )
    if len(options.targets) > 1:
        raise ConfigError(
            f"--tune is for one target, not for {len(options.targets)}",
            hint="build a bundle for each",
        )


def tune(options: Options, build: Build, progress: Progress) -> BuildReport:
    """Builds ``options.output`` with the best settings that are found, and tells all trials.

    Args:
        options: as they were given.
        build: one build with options.

    Raises:
        ConfigError: the target's engines cannot be measured there, a library is missing, or the log
            is of something else; and whatever the build with the usual settings raises.
        DeviceError: the device of ``--on`` cannot be used, is not the target, or is gone.
    """
    check_tuning(options)
    check_optuna()
    target = find_target(options.targets[0], options.engine)
    here = facts()
    _check(options, target, here)
    given = replace(
        options, tune=False, trials=None, budget_minutes=None, optimize="latency", report=None
    )
    folder = options.output.with_name(f"{options.output.stem}.tune")
    with _folder(folder), progress.step("tune") as step:
        tuning = _Tuning(options, given, build, target, here, folder, step)
        return tuning.run()


@dataclass
class _Tuning:
    """A tuning, over as many connections as it takes."""

    options: Options
    given: Options
    build: Build
    target: Target
    here: Mapping[str, Any]
    folder: Path
    step: Step
    numbers: Iterator[int] = field(default_factory=count)
    began: float | None = None  # on the first connection, which may have been waited for
    resumed: int | None = None
    lost: int = 0
    _noted: int = 0  # trials that are in the log by now

    def run(self) -> BuildReport:
        """Searches, again by the log where the device is lost in between."""
        tries = 0
        while True:
            known = self._noted
            try:
                return self._once()
            except (ConnectionLost, UnreachableError) as lost:
                if isinstance(lost, UnreachableError) and not self.lost:
                    raise  # it was never there
                self.lost += isinstance(lost, ConnectionLost)
                tries = 1 if self._noted > known else tries + 1
                if tries >= finishing.ATTEMPTS:
                    raise
                _LOG.warning("%s; trying again", lost.message)
                self.step.detail(f"connect to {self.options.on} again")
                finishing.pause(tries)

    def _once(self) -> BuildReport:
        """All that is left to do, on one connection."""
        target, folder, say = self.target, self.folder, self.step.detail
        with _place(self.options, target, self.here, say) as place:
            self.began = time.monotonic() if self.began is None else self.began
            of = {"target": target.name, "machine": _machine(place.facts, target)}
            of["settings"] = _digest(_plain(self.given))
            check_log(folder / "trials.jsonl", of)
            say("build with the usual settings")
            usual = self._make({}, 0, place)
            of |= _content(usual.bundle, target)
            with open_log(folder / "trials.jsonl", of) as log:
                if self.resumed is None:
                    self.resumed = len(log.lines)
                search = Search(
                    lambda settings, rebuild: self._make(settings, rebuild, place),
                    space(self.given, target, place.facts["cpu"]["count"]),
                    self.options,
                    target.name,
                    log,
                    say,
                    place.where,
                )
                search.spent_s = time.monotonic() - self.began
                try:
                    told = search.run(usual)
                finally:
                    self._noted = len(log.lines)
            assert search.shipped is not None
            shipped = search.shipped
            shipped.bundle.replace(self.options.output)
            for left in folder.glob("*.tar"):
                left.unlink()
        report = place.told(shipped.report, self.lost)
        if report.bundle is not None:
            path = str(self.options.output)
            report = replace(report, bundle=replace(report.bundle, path=path))
        return replace(report, tuning={**told, "resumed": self.resumed})

    def _make(self, settings: Mapping[str, Any], rebuild: int, place: _Place) -> Built:
        name = f"{next(self.numbers)}.tar"
        chosen = replace(applied(self.given, settings), output=self.folder / name)
        if rebuild:
            chosen = replace(chosen, cache=False)
        start = time.monotonic()
        report = self.build(chosen, _Nested(self.step), place.has_lease)
        return _built(self.folder / name, self.target, report, time.monotonic() - start)


@dataclass(frozen=True)
class _Place:
    """Where candidates are measured: the machine's facts, and the ``stay`` on a device."""

    facts: Mapping[str, Any]
    stay: Stay | None = None

    @property
    def where(self) -> Where:
        return HERE if self.stay is None else self.stay

    def has_lease(self) -> bool:
        return self.stay is not None and self.stay.has_lease()

    def told(self, report: BuildReport, lost: int) -> BuildReport:
        """The report of what is shipped, with how often the device was lost besides."""
        if self.stay is None or report.on is None:
            return report
        on = self.stay.told(report.on)
        return replace(report, on=replace(on, lost=on.lost + lost))


@contextmanager
def _place(options: Options, target: Target, here: Mapping[str, Any], say: Say) -> Iterator[_Place]:
    login = login_of(options)
    if login is None:
        yield _Place(here)
        return
    with staying(login, target, options, say) as stay:
        yield _Place(stay.facts, stay)


class _Nested(Progress):
    """The steps of a candidate's build as what one step is at."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._outer = step

    def began(self, step: Step) -> None:
        self._outer.detail(step.name)

    def changed(self, step: Step) -> None:
        self._outer.detail(f"{step.name}: {step.text}")


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The folder of a tuning, which nobody else works in, without what a killed one left there."""
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}", hint="choose another --output"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another process tunes into {folder}", hint="wait for it, or end it"
            ) from error
        _clean(folder)
        try:
            yield
        finally:
            _clean(folder)
            with suppress(OSError):
                folder.rmdir()  # where not even a log was begun
    finally:
        os.close(lock)


def _clean(folder: Path) -> None:
    for left in folder.glob("*.tar"):
        left.unlink(missing_ok=True)
    for left in folder.glob(".trtpack-*"):
        shutil.rmtree(left, ignore_errors=True)


def _check(options: Options, target: Target, here: Mapping[str, Any]) -> None:
    """Refuses what cannot be tuned, as far as this host's facts tell."""
    kind = kind_for(options, target)
    if kind == "reference":
        raise ConfigError(
            f"{target.name} runs in PyTorch as it is, which has nothing to tune",
            hint="choose a target with engines, or --engine inductor",
        )
    if options.on is not None:
        _check_device_kind(options, kind, target, here)
        return
    why = cannot_measure_here(kind, target, here)
    if why is not None:
        raise ConfigError(
            f"--tune measures engines for {target.name} on this machine: {why}",
            hint="tune on a machine like the target, or on the device with --on ssh://user@host",
        )


def _check_device_kind(
    options: Options, kind: str, target: Target, here: Mapping[str, Any]
) -> None:
    """Refuses targets whose engines neither the device nor this host builds for ``--on``."""
    why = target.unsupported
    if why is None and kind not in BUILDERS:
        why = cannot_build_here(kind, target, here, by_device=False)
    if why is not None:
        raise ConfigError(
            f"--tune measures engines for {target.name} on {options.on}: {why}",
            hint="leave --tune away",
        )


def _built(path: Path, target: Target, report: BuildReport, seconds: float) -> Built:
    bundle = open_bundle(path)
    variant = bundle.manifest.variants[target.name]
    members = [*variant.programs.values()]
    members += [e.member for e in variant.engines.values() if e.member is not None]
    engines = sum(engine.nbytes for one in report.targets for engine in one.engines)
    content = _digest([*_sha256(bundle, members), str(variant.cuda_graphs)])
    return Built(path, report, content, engines, seconds)


def _content(path: Path, target: Target) -> dict[str, str]:
    """What the usual bundle computes, apart from how its engines do."""
    bundle = open_bundle(path)
    variant = bundle.manifest.variants[target.name]
    networks = [name for name in bundle.entries if name.startswith("networks/")]
    return {
        "model": _digest(_sha256(bundle, [*variant.programs.values(), *networks])),
        "weights": _digest(_sha256(bundle, bundle.manifest.weights.members)),
    }


def _sha256(bundle: Bundle, members: Any) -> list[str]:
    return [bundle.entries[name].sha256 for name in members]


def _machine(here: Mapping[str, Any], target: Target) -> str:
    gpu = here["gpus"][0]["name"] if here["gpus"] and target.sm is not None else None
    keys = ("os", "arch", "torch", "tensorrt", "tensorrt_rtx", "runtime")
    return _digest([here["cpu"]["count"], here["cpu"]["model"], gpu, *(here.get(k) for k in keys)])


def _plain(options: Options) -> dict[str, str]:
    """What trials depend on besides model and machine; not the way to the machine."""
    usual = Options(options.targets)
    options = replace(options, on=None, ssh_options=(), lease_timeout_s=usual.lease_timeout_s)
    left_out = ("output", "cache", "metadata")
    return {k: str(v) for k, v in options.__dict__.items() if k not in left_out}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
