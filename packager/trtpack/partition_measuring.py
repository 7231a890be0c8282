# SPDX-License-Identifier: Apache-2.0
"""``--measure-partition``: where a target is at hand its partitions are timed, not predicted.

Each way to divide the model is built, as the build itself would, and called in turns with the
others. What was timed is kept for this machine, so that the next build asks nothing.
"""

from __future__ import annotations

import logging
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.atomic import replaced
from trtpack_runtime.checked_json import canonical, parse
from trtpack_runtime.engine_store import engine_key
from trtpack_runtime.execution import Placed
from trtpack_runtime.safetensors import open_safetensors
from trtpack_runtime.store_folder import store_folder

from .building import Assembly, assemble_all, build_engines
from .engine_options import kind_for
from .engines import Bench, cannot_measure_here
from .golden import copied, tensors_of
from .methods import Prepared
from .partition import TOO_SMALL
from .plan_timing import callable_plan, in_turns
from .planning import Planned, plan
from .report import Progress
from .target import Target

_LOG = logging.getLogger("trtpack.partition")

LEAST: tuple[int | None, ...] = (None, 1, 5, 1 << 30)
"""The ways to divide, by --min-block-size: by prediction, all that can be on engines, the same
without small segments, nothing on engines."""
_SLOWER = "the model was measured to be slower with an engine of it"
_SECONDS = 6.0
_MARGIN = 0.98
"""Another way has to take less than this part of the predicted one's time to be chosen."""


def measured_partitions(
    methods: Sequence[Prepared], planned: Sequence[Planned], bench: Bench, progress: Progress
) -> list[Planned]:
    """Every plan that was divided by prediction, divided as is the fastest here."""
    found = []
    for one in planned:
        method = next(m for m in methods if m.name == one.method)
        call = next(iter(method.source.samples(1)))
        folder = bench.folder / f"{one.target.name}-{one.method}"
        folder.mkdir()
        own = replace(bench, folder=folder, options=method.options)
        found.append(measured(one, tensors_of(copied(call)), own, progress))
    return found


def measured(
    planned: Planned,
    inputs: Sequence[torch.Tensor],
    bench: Bench,
    progress: Progress,
) -> Planned:
    """The plan that is the fastest of those timed here; as it is where one engine runs all of the
    model, or the target is not at hand.

    Raises:
        EngineBuildError: an engine of one cannot be built.
    """
    target, options = planned.target, bench.options
    if planned.plan.prediction is None:
        return planned
    kind = kind_for(options, target)
    if reason := cannot_measure_here(kind, target, bench.facts):
        _LOG.warning("%s: the partition is predicted, not measured: %s", target.name, reason)
        return planned
    candidates = _candidates(planned, bench)
    times = _times(candidates, inputs, bench, progress)
    best = min(times, key=lambda least: times[least] * (1 if least is None else 1 / _MARGIN))
    prediction = planned.plan.prediction
    told = replace(
        prediction,
        us=1e6 * times[best],
        most_us=1e6 * times.get(1, times[best]),
        none_us=1e6 * times.get(LEAST[-1], times[best]),
        measured=device_name(bench.facts, target),
    )
    chosen = candidates[best]
    refusals = tuple(
        replace(r, reason=_SLOWER) if r.reason.endswith(TOO_SMALL) else r
        for r in chosen.plan.refusals
    )
    return replace(chosen, plan=replace(chosen.plan, prediction=told, refusals=refusals))


def _candidates(planned: Planned, bench: Bench) -> dict[int | None, Planned]:
    """Each way to divide by its ``LEAST``, those that come to the same only once."""
    found: dict[int | None, Planned] = {}
    for least in LEAST:
        one = planned
        if least is not None:
            one = plan(
                planned.lowered,
                planned.target,
                bench.options,
                planned.profiles,
                planned.failed,
                least,
            )
        found[least] = one
    return found


def _times(
    candidates: Mapping[int | None, Planned],
    inputs: Sequence[torch.Tensor],
    bench: Bench,
    progress: Progress,
) -> dict[int | None, float]:
    """The median seconds of a call of each."""
    keyed: dict[str, list[int | None]] = {}
    assemblies: dict[str, Assembly] = {}
    for number, (least, one) in enumerate(candidates.items()):
        folder = bench.folder / f"partition-{number}"
        folder.mkdir()
        assembly = assemble_all([one.lowered.captured], [one], folder)
        key = _key(one, assembly, inputs, bench)
        keyed.setdefault(key, []).append(least)
        assemblies.setdefault(key, assembly)
    kept = {key: _kept(key) for key in keyed} if bench.options.cache else {}
    times = {key: seconds for key, seconds in kept.items() if seconds is not None}
    if len(times) < len(keyed):
        calls = {}
        for key, leasts in keyed.items():
            one = candidates[leasts[0]]
            calls[key] = built_plan(one, assemblies[key], inputs, bench, progress)
        name = next(iter(candidates.values())).target.name
        with progress.step(f"{name}: time {len(calls)} ways to divide the model"):
            found = in_turns(calls, _SECONDS)
        times = {key: statistics.median(values) for key, values in found.items()}
        if bench.options.cache:
            for key, seconds in times.items():
                _keep(key, seconds)
    return {least: times[key] for key, leasts in keyed.items() for least in leasts}


def built_plan(
    one: Planned,
    assembly: Assembly,
    inputs: Sequence[torch.Tensor],
    bench: Bench,
    progress: Progress,
) -> Any:
    """A plan's program with its engines built, ready to be called with ``inputs``.

    Raises:
        EngineBuildError: an engine cannot be built.
    """
    path = assembly.stored.path
    own = replace(bench, weights=path, folder=path.parent)
    engines = build_engines(one, assembly, own, progress, search=False).built
    device = torch.device("cpu" if one.target.sm is None else "cuda")
    stored = {name: view.tensor() for name, view in open_safetensors(path).items()}
    built = {
        name: (made.kind, made.path, made.record)
        for name, made in engines.items()
        if made.path is not None and made.record is not None
    }
    return callable_plan(
        one.lowered.captured,
        assembly.programs[one.target.name][one.method],
        Placed(stored, lambda tensor: tensor.to(device)),
        built,
        [tensor.to(device) for tensor in inputs],
        device,
    )


def _key(one: Planned, assembly: Assembly, inputs: Sequence[torch.Tensor], bench: Bench) -> str:
    """What a time depends on: what is run in which segments, sizes, this machine, its software."""
    assembled = assembly.programs[one.target.name][one.method]
    facts, options = bench.facts, bench.options
    compiled = {s.name: s.compiled for s in one.plan.segments}
    return engine_key(
        {
            "segments": [
                [s.kind, s.graph, compiled[s.name], sorted(s.inputs.items())]
                for s in assembled.program.segments
            ],
            "networks": {name: n.digest() for name, n in assembled.networks.items()},
            "inputs": [[str(t.dtype), list(t.shape)] for t in inputs],
            "device": device_name(facts, one.target),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": facts["torch"],
            "tensorrt": facts.get("tensorrt"),
            "runtime": facts["runtime"],
            "optimization_level": options.optimization_level,
        }
    )


def device_name(facts: Mapping[str, Any], target: Target) -> str:
    """What this machine runs a target's engines on."""
    return str(facts["cpu"]["model"] if target.sm is None else facts["gpus"][0]["name"])


def _places(key: str) -> list[Path]:
    return [folder / f"{key}.json" for folder in store_folder().below("partitions").read]


def _kept(key: str) -> float | None:
    """The seconds kept under a key; None where there are none, or they cannot be read."""
    for path in _places(key):
        try:
            return float(parse(path.read_bytes())["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _keep(key: str, seconds: float) -> None:
    path = store_folder().below("partitions").written / f"{key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write(canonical({"seconds": seconds}))
    except OSError as error:
        _LOG.info("the time of a partition is not kept: %s", error)
