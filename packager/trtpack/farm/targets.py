# SPDX-License-Identifier: Apache-2.0
"""Which targets a machine builds for, and which machines of a farm build for a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtpack_runtime import __version__
from trtpack_runtime.builders import BUILDERS, Site

from ..target import Target, catalogue, catalogue_for
from ..target.files import Device
from ..target.native import device_like


@dataclass(frozen=True)
class FarmWorker:
    """A worker of a farm: what it says it builds for, its facts, the Dask it has.

    ``facts`` is None for a worker of Dask that ``trtpack farm worker`` did not start.
    """

    address: str
    name: str
    targets: tuple[str, ...]
    facts: Mapping[str, Any] | None
    distributed: str | None = None


@dataclass(frozen=True)
class Fit:
    """The workers that build for a target, and the name under which they say so.

    ``refused`` says of others that name the target why they are not asked.
    """

    resource: str
    workers: tuple[FarmWorker, ...]
    refused: tuple[str, ...] = ()


def targets_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of all targets that a machine of these facts can build engines for.

    A GPU's TensorRT measures on that GPU: where the machine is a device of the list, its engines
    are for that one alone.
    """
    known = catalogue()
    like = _device(facts)
    found = []
    for device in known.devices.values():
        for stack in () if device.unsupported else device.stacks:
            target = known.target(device.id, device, known.stacks[stack])
            if target.engine_kind not in BUILDERS:
                continue
            other = target.engine_kind == "tensorrt" and like is not None and like.id != device.id
            if not other and cannot_build(target.engine_kind, target, facts) is None:
                found.append(target.key)
    return tuple(sorted(found))


def _device(facts: Mapping[str, Any]) -> Device | None:
    """The listed device that a machine is: by its GPU's name, else by SM and memory."""
    known, gpus = catalogue().devices.values(), facts.get("gpus") or ()
    if not gpus:
        return None
    words = set(gpus[0]["name"].split()) | {"NVIDIA", "GeForce"}
    named = [device for device in known if words.issuperset(device.device.split())]
    if named:
        return max(named, key=lambda device: len(device.device.split()))
    return device_like(facts, gpus[0], known)


def cannot_build(kind: str, target: Target, facts: Mapping[str, Any]) -> str | None:
    """Why a machine of these facts cannot build a target's engines of that kind, or None."""
    return BUILDERS[kind].cannot_build(Site(facts, target.describe()))


def spellings(target: Target) -> tuple[str, ...]:
    """Every name that means ``target``: its key first."""
    known = catalogue_for(target.name)
    device, _, stack = target.key.partition("@")
    names = (device, *known.aliases_of(target))
    stacks = known.stacks_of(target)
    found = [target.key, target.name, *(f"{name}@{stack}" for name in names)]
    return tuple(dict.fromkeys([*found, *(names if stack == stacks[0] else ())]))


def fit(names: Sequence[str], target: Target, kind: str, workers: Sequence[FarmWorker]) -> Fit:
    """Which of ``workers`` build engines of ``kind`` for ``target``, which has these ``names``.

    Where they call it differently, those count whose name for it most have: Dask hands a task to
    workers that have one resource.
    """
    by_name: dict[str, list[FarmWorker]] = {}
    refused = []
    for worker in workers:
        named = next((name for name in names if name in worker.targets), None)
        if named is None:
            continue
        why = _not_asked(worker, kind, target)
        if why is None:
            by_name.setdefault(named, []).append(worker)
        else:
            refused.append(f"worker {worker.name} has {named} but is not asked: {why}")
    most = max(by_name, key=lambda name: len(by_name[name]), default=target.key)
    return Fit(most, tuple(by_name.get(most, ())), tuple(refused))


def _not_asked(worker: FarmWorker, kind: str, target: Target) -> str | None:
    if worker.facts is None:
        return "trtpack farm worker did not start it"
    if worker.facts.get("runtime") != __version__:
        return f"it has trtpack-runtime {worker.facts.get('runtime')}, this host {__version__}"
    return cannot_build(kind, target, worker.facts)
