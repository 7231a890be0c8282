# SPDX-License-Identifier: Apache-2.0
"""TensorRT 8.6 to 11.x: engines built on the GPU they run on, by the TensorRT that runs them.

A plan belongs to the GPU model that timed its tactics and to the exact TensorRT. It runs on other
models of the same compute capability, untuned; a version-compatible one with newer TensorRTs, a
hardware-compatible one on other capabilities.

Sources: TensorRT's documentation, "Engine Compatibility" (an 8.x version-compatible plan runs on
10.x, a 10.x one on 11.x, never backwards); ``NvInfer.h``, ``HardwareCompatibilityLevel``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import BundleError
from trtpack_runtime.mapping import FilePart
from trtpack_runtime.network import Network

from . import LoadContext, Runner, Verdict
from ._child import BuildJob, build_in_worker
from ._figures import memory_of
from ._load import load_engine
from ._options import BuildOptions

MODULE = "tensorrt"
NEWEST_FOR: Mapping[int, int] = {8: 10, 10: 11}
"""Major release of a version-compatible plan -> the newest major release that runs it."""

_ONE_DEVICE = {"10.1": "11.0"}
"""Thor's capability before CUDA 13 -> since."""


@dataclass(frozen=True)
class Built:
    """A finished build: the plan's compatibility record, and what the build learnt.

    ``tactics`` is the timing cache after the build; ``entries`` are what it holds, where this
    TensorRT lets that be read. ``log`` are TensorRT's lines, each with its severity.
    ``refused_tactics`` and ``gpu`` are those of ``_child.BuildResult``.
    """

    record: dict[str, Any]
    seconds: float
    tactics: bytes | None
    entries: tuple[Mapping[str, Any], ...] | None
    log: tuple[str, ...]
    refused_tactics: str | None = None
    gpu: Mapping[str, int] = field(default_factory=dict)


def build(
    network: Network,
    weights: Sequence[Path | FilePart],
    plan: Path,
    *,
    options: BuildOptions,
    facts: Mapping[str, Any],
    tactics: bytes | None = None,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    on_log: Callable[[str], None] | None = None,
    verbose: bool = False,
    name: str | None = None,
) -> Built:
    """Builds ``plan`` in a child process on the first GPU of ``facts``.

    Args:
        network: the portable network.
        weights: the safetensors files with every stored tensor the network names.
        plan: the file to write.
        options: how TensorRT builds.
        facts: this machine's facts (``device.facts()``).
        tactics: a serialised timing cache to begin with.
        on_progress: told ``{"phase", "step", "steps"}`` as TensorRT goes.
        on_log: told each of TensorRT's log lines when the build is over, VERBOSE ones too where
            ``verbose``.
        name: what errors call the engine; the plan's file name where not given.

    Raises:
        EngineBuildError: TensorRT refused the network or an option, or its process died.
        DeviceError: TensorRT is not installed, or the GPU cannot serve it or is too small.
        ConfigError: the disk refused.
    """
    gpu: Mapping[str, Any] = facts["gpus"][0] if facts["gpus"] else {}
    job = BuildJob(
        MODULE,
        network,
        tuple(weights),
        plan,
        options,
        name or plan.stem,
        verbose,
        tactics,
        gpu.get("memory_bytes") or None,
        bool(gpu.get("integrated")),
        gpu.get("index") or 0,
    )
    result = build_in_worker(job, on_progress)
    if on_log is not None:
        for line in result.log:
            on_log(line)
    record = record_of(result.version, options, facts)
    if memory := memory_of(result.log):
        record["memory"] = memory
    return Built(
        record,
        result.seconds,
        result.tactics,
        result.entries,
        result.log,
        result.refused_tactics,
        result.gpu,
    )


def record_of(version: str, options: BuildOptions, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The compatibility record of an engine that TensorRT ``version`` builds on this machine."""
    gpu: Mapping[str, Any] = facts["gpus"][0] if facts["gpus"] else {}
    driver, jetson = facts.get("driver") or {}, facts.get("jetson") or {}
    return {
        "tensorrt": version,
        "sm": gpu.get("sm"),
        "device": gpu.get("name"),
        "sm_count": gpu.get("multiprocessors"),
        "jetson": jetson.get("module"),
        "cuda": driver.get("cuda"),
        "driver": driver.get("version"),
        "os": facts["os"],
        "arch": facts["arch"],
        "options": options.to_json(),
        "weights": options.weights,
        "refit": options.weights == "stripped",
    }


def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """Judges a plan before it is read.

    Raises:
        BundleError: the record lacks something.
    """
    reason = _no_tensorrt(facts)
    if reason is not None:
        return Verdict("impossible", reason)
    wants = {key: _text(record, key) for key in ("tensorrt", "sm", "device", "os", "arch")}
    options = _options(record)
    for what in ("os", "arch"):
        if wants[what] != facts[what]:
            return Verdict("rebuild", f"built for {wants[what]}, this machine is {facts[what]}")
    gpu, has = facts["gpus"][0], facts["tensorrt"]
    limits = [_of_gpu(wants, record, options, facts), _of_version(wants["tensorrt"], has, options)]
    for verdict in limits:
        if verdict is not None and verdict.fit == "rebuild":
            return verdict
    reasons = [verdict.reason for verdict in limits if verdict is not None]
    if reasons:
        return Verdict("works", "; ".join(reasons))
    return Verdict("exact", f"built by TensorRT {has} for {gpu['name']} (SM {gpu['sm']})")


def can_build(facts: Mapping[str, Any], target: Mapping[str, Any] | None = None) -> str | None:
    """Why this machine cannot build an engine, for itself or for a target; None where it can.

    A target's ``arch``, ``sm``, ``sm_also`` (other spellings of it) and ``tensorrt`` ("10.3", as
    many places as matter) are looked at, each where given.
    """
    reason = _no_tensorrt(facts)
    if reason is not None or target is None:
        return reason
    gpu, has = facts["gpus"][0], facts["tensorrt"]
    arch = target.get("arch")
    if arch and arch != facts["arch"]:
        return f"this machine is {facts['arch']}, not {arch}"
    sms = [sm for sm in (target.get("sm"), *target.get("sm_also", ())) if sm]
    if sms and _sm(gpu["sm"]) not in map(_sm, sms):
        return f"{gpu['name']} is SM {gpu['sm']}, not {sms[0]}"
    wanted = target.get("tensorrt")
    if wanted:
        given = wanted if isinstance(wanted, str) else ".".join(map(str, wanted))
        if not _same_release(given, has):
            return f"this machine has TensorRT {has}, not {given}"
    return None


def load(blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """Deserialises the plan on the context's GPU.

    Raises:
        BundleError: the plan is damaged, or of another TensorRT or GPU, or weights are missing.
        DeviceError: there is no TensorRT here, or the GPU has no memory for the plan.
    """
    return load_engine(MODULE, blob, context)


def _no_tensorrt(facts: Mapping[str, Any]) -> str | None:
    """Why no engine at all runs here."""
    if not facts["gpus"]:
        return "; ".join(facts.get("problems", ())) or "there is no NVIDIA GPU"
    if not facts.get("tensorrt"):
        return "TensorRT is not installed"
    needs = cuda_needed(facts["tensorrt"], facts.get("tensorrt_cuda"))
    serves = (facts.get("driver") or {}).get("cuda")
    if serves and _numbers(serves)[:1] < (needs,):
        return (
            f"the driver serves CUDA {serves}, TensorRT {facts['tensorrt']} needs CUDA {needs}; "
            "update the NVIDIA driver"
        )
    return None


def cuda_needed(tensorrt: str, built_for: str | None = None) -> int:
    """The major release of CUDA that a driver must serve for a TensorRT.

    ``built_for`` is that of the installed package, where its name tells it. TensorRT 10.13.2
    dropped CUDA 11.
    """
    if built_for:
        return int(built_for)
    return 12 if _numbers(tensorrt) >= (10, 13, 2) else 11


def _of_gpu(
    wants: Mapping[str, str],
    record: Mapping[str, Any],
    options: BuildOptions,
    facts: Mapping[str, Any],
) -> Verdict | None:
    """How the plan fits this GPU; None where it was built on one like it."""
    gpu, built_on = facts["gpus"][0], f"{wants['device']} (SM {wants['sm']})"
    here = f"this machine has {gpu['name']} (SM {gpu['sm']})"
    jetson = (facts.get("jetson") or {}).get("module")
    if _sm(wants["sm"]) != _sm(gpu["sm"]):
        both = min(_numbers(wants["sm"]), _numbers(gpu["sm"])) >= (8, 0)
        on_jetson = record.get("jetson") or facts.get("jetson")
        if options.hardware_compatibility == "AMPERE_PLUS" and both and not on_jetson:
            return Verdict("works", f"built on {built_on} for Ampere and later, not tuned here")
        return Verdict("rebuild", f"built on {built_on}, {here}")
    if record.get("jetson") != jetson:
        modules = f"{record.get('jetson') or 'no Jetson'}, this machine is {jetson or 'none'}"
        if not (record.get("jetson") and jetson):
            return Verdict("rebuild", f"built on {modules}")
        return Verdict("works", f"built on {modules}; not tuned here")
    if wants["device"] != gpu["name"]:
        return Verdict("works", f"built on {built_on}, {here}; not tuned here")
    counts = record.get("sm_count"), gpu.get("multiprocessors")
    if counts[0] is not None and counts[0] != counts[1]:
        here = f"here are {counts[1]}; not tuned here" if counts[1] else "nobody tells those here"
        return Verdict("works", f"built on {built_on} with {counts[0]} multiprocessors, {here}")
    return None


def _of_version(wants: str, has: str, options: BuildOptions) -> Verdict | None:
    """How the plan fits this TensorRT; None where it is the one that built it."""
    if _same_release(wants, has):
        return None
    told = f"built by TensorRT {wants}, this machine has {has}"
    if not options.version_compatible:
        return Verdict("rebuild", told)
    old, new = _numbers(wants), _numbers(has)
    if new < old:
        return Verdict("rebuild", f"{told}; a plan is not compatible with an older TensorRT")
    if new[0] > NEWEST_FOR.get(old[0], old[0]):
        return Verdict("rebuild", f"{told}; it is compatible up to {NEWEST_FOR.get(old[0])}.x")
    return Verdict("works", f"{told}; built to be compatible with it")


def _same_release(wants: str, has: str) -> bool:
    """Whether two versions agree as far as both say ("10.3.0" is Debian's way for 10.3.0.30)."""
    first, second = _numbers(wants), _numbers(has)
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers a version begins with; what follows them is no part of it."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _sm(sm: str) -> str:
    return _ONE_DEVICE.get(sm, sm)


def _options(record: Mapping[str, Any]) -> BuildOptions:
    try:
        return BuildOptions.from_json(record["options"])
    except (KeyError, TypeError) as error:
        raise BundleError(
            "the record of a tensorrt engine has no build options", hint="build the bundle again"
        ) from error


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise BundleError(
            f"the record of a tensorrt engine has no {key!r}", hint="build the bundle again"
        )
    return value
