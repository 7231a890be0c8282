# SPDX-License-Identifier: Apache-2.0
"""What the pipeline does with the device of ``--on``: looks at it first, builds on it last."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trtpack_runtime.tactics import TacticStore

from ..engines import Bench, BuiltEngine
from ..options import Options
from ..report import DeviceReport, Progress
from ..target import Target
from .checks import targets_of
from .finishing import Finishing, Stores
from .login import Login

Engines = dict[str, Mapping[str, BuiltEngine]]
"""Target -> segment -> its engine."""

Refused = Mapping[tuple[str, str], Mapping[str, str]]
"""Target and segment -> graph node -> why TensorRT refused it."""


@dataclass(frozen=True)
class Visit:
    """What a first look at a device found: the names of the ``targets`` that it is."""

    targets: frozenset[str]


def login_of(options: Options) -> Login | None:
    """How to get to the device of ``--on``; None without one.

    Raises:
        ConfigError: it is no address.
    """
    if options.on is None:
        return None
    return Login.to(options.on, options.ssh_options, options.remote_python, options.lease_timeout_s)


def look_at_device(options: Options, targets: Sequence[Target], progress: Progress) -> Visit | None:
    """Logs in and looks whether the device is a target, before minutes are spent on the model.

    Raises:
        TrtpackError: it cannot be used, or is none of the targets.
    """
    login = login_of(options)
    if login is None:
        return None
    with progress.step(f"look at {login.address}"), login.device() as device:
        found = targets_of(device.hello, targets, options, login.address)
    return Visit(frozenset(target.name for target in found))


def finish_on_device(
    bench: Bench,
    bundle: Path,
    built: Engines,
    progress: Progress,
    failed: Path,
    refused_before: Mapping[tuple[str, str], Collection[str]] | None,
) -> tuple[DeviceReport | None, Engines, Refused]:
    """Builds what was left to the device into ``bundle``; the engines of all targets then, or what
    its TensorRT refused. Without ``refused_before``, nodes by target and segment, that
    is raised.

    Raises:
        TrtpackError: as ``Finishing.run``.
    """
    options = bench.options
    login = login_of(options)
    if login is None or not bench.elsewhere:
        return None, built, {}
    finishing = Finishing(
        login,
        bundle,
        sorted(bench.elsewhere),
        Stores(bench.store, TacticStore() if options.cache else None),
        bench.folder,
        progress,
        options.cool_below_c,
        refused_before,
        bench.has_lease,
    )
    outcome = finishing.run(failed)
    engines = dict(built)
    for (name, segment), engine in outcome.engines.items():
        finished = replace(
            engines[name][segment],
            path=engine.path,
            record=engine.record,
            deferred=None,
            seconds=engine.seconds,
            cached=engine.cached,
            age_seconds=max(time.time() - engine.built_at, 0.0),
        )
        engines[name] = {**engines[name], segment: finished}
    return outcome.report, engines, outcome.refused
