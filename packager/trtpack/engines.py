# SPDX-License-Identifier: Apache-2.0
"""Builds, or defers, the engine of every segment of one target's program."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Segment

from .custom_operators import required_modules
from .engine_cache import EngineCache, cache_key
from .options import Options
from .target import Target

_LOG = logging.getLogger("trtpack.engines")
_TENSORRT = logging.getLogger("trtpack.tensorrt")
_INDUCTOR = logging.getLogger("trtpack.inductor")

OnProgress = Callable[[str], None]
"""Told what a build is doing, as a short clause."""


@dataclass(frozen=True)
class BuiltEngine:
    """A segment's engine: a file with its record, or the reason why the device builds it.

    ``kind`` is the engine kind; ``cached`` says that it was not built now; ``age_seconds`` how long
    ago then.
    """

    segment: str
    kind: str
    path: Path | None = None
    record: Mapping[str, Any] | None = None
    deferred: str | None = None
    seconds: float = 0.0
    cached: bool = False
    age_seconds: float = 0.0

    @property
    def nbytes(self) -> int:
        """Size of the engine file; 0 where there is none."""
        return self.path.stat().st_size if self.path else 0


@dataclass(frozen=True)
class Job:
    """What an engine is built from: the segment, its inputs, its network if it has one.

    ``digests`` are the sha256 of every stored tensor it reads, by stored name.
    """

    segment: Segment
    inputs: tuple[Tensor, ...]
    profile: Profile | None
    network: Network | None
    digests: Mapping[str, str]


def build_engine(
    job: Job,
    target: Target,
    options: Options,
    weights: Path,
    folder: Path,
    cache: EngineCache,
    on_progress: OnProgress,
) -> BuiltEngine | None:
    """The engine of one segment for one target; None where the segment runs without one.

    Raises:
        EngineBuildError: the builder refused the segment or died.
    """
    kind = options.engine or target.engine_kind
    if kind == "reference" or (job.network is None) != (kind == "inductor"):
        return None
    reason = _cannot_build_here(kind, target)
    if reason is not None:
        _LOG.info("%s: %s is deferred: %s", target.name, job.segment.name, reason)
        return BuiltEngine(job.segment.name, kind, deferred=reason)
    key = cache_key(_depends_on(kind, job, target, options))
    known = cache.get(key)
    suffix = "pt2" if kind == "inductor" else "plan"
    path = folder / f"{target.name}-{job.segment.name}.{suffix}"
    if known is not None:
        shutil.copyfile(known.path, path)
        age = time.time() - known.built_at
        _LOG.info("%s: %s comes from the cache: %s", target.name, job.segment.name, known.path)
        return BuiltEngine(job.segment.name, kind, path, known.record, cached=True, age_seconds=age)
    start = time.perf_counter()
    if kind == "inductor":
        record = _build_inductor(job, weights, path, on_progress)
    else:
        record = _build_rtx(job, target, options, weights, path, on_progress)
    cache.put(key, path, record)
    return BuiltEngine(job.segment.name, kind, path, record, seconds=time.perf_counter() - start)


def _cannot_build_here(kind: str, target: Target) -> str | None:
    """Why the engine has to be built on the device, or None."""
    if target.unsupported:
        return target.unsupported
    if kind == "tensorrt":
        release = ".".join(map(str, target.tensorrt or ())) or "TensorRT"
        return (
            f"an engine for SM {target.sm} is built by TensorRT {release} on such a GPU, "
            "which this host is not; left to the device, which runs it in PyTorch until then"
        )
    if kind == "tensorrt-rtx" and _version("tensorrt_rtx") is None:
        return "tensorrt-rtx is not installed on this host; left to the device"
    if kind == "inductor":
        if target.arch != platform.machine():
            return f"this host is {platform.machine()}, not {target.arch}; it runs in PyTorch there"
        if not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")):
            return "this host has no C++ compiler; it runs in PyTorch there"
    return None


def _depends_on(kind: str, job: Job, target: Target, options: Options) -> dict[str, Any]:
    profile = (
        {k: [list(s) for s in v] for k, v in job.profile.shapes.items()} if job.profile else {}
    )
    parts: dict[str, Any] = {
        "kind": kind,
        "emitter": _version("trtpack-runtime"),
        "weights": dict(job.digests),
        "profile": profile,
        "settings": options.engine_settings(),
    }
    if kind == "inductor":
        from trtpack_runtime.engines.inductor import cpu_flags

        return parts | {
            "graph": job.segment.graph,
            "inputs": [str(tensor) for tensor in job.inputs],
            "torch": _version("torch"),
            "machine": platform.machine(),
            "cpu": cpu_flags(),
        }
    assert job.network is not None
    return parts | {
        "network": job.network.digest(),
        "capability": target.rtx_capability,
        "builder": _version("tensorrt_rtx"),
    }


def _build_inductor(
    job: Job, weights: Path, path: Path, on_progress: OnProgress
) -> Mapping[str, Any]:
    from trtpack_runtime.engines.inductor_build import build_in_child

    assert job.segment.graph is not None
    on_progress("compiling C++")
    return build_in_child(
        job.segment.graph,
        [weights],
        job.inputs,
        path,
        profile=job.profile,
        imports=required_modules(job.segment.graph),
        log=lambda line: _INDUCTOR.debug("%s", line),
    )


def _build_rtx(
    job: Job,
    target: Target,
    options: Options,
    weights: Path,
    path: Path,
    on_progress: OnProgress,
) -> Mapping[str, Any]:
    from trtpack_runtime.engines import tensorrt_rtx

    assert job.network is not None
    if target.rtx_capability is None:
        raise EngineBuildError(
            f"TensorRT-RTX has no name for SM {target.sm}", hint="choose an RTX-class target"
        )
    return tensorrt_rtx.build(
        job.network,
        weights,
        path,
        compute_capabilities=(target.rtx_capability,),
        optimization_level=options.optimization_level,
        workspace_bytes=options.workspace_bytes,
        on_progress=on_progress,
        on_log=lambda line: _TENSORRT.debug("%s", line),
        verbose=_TENSORRT.isEnabledFor(logging.DEBUG),
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
