# SPDX-License-Identifier: Apache-2.0
"""Timing caches read, edited, or several made one, by the TensorRT they are of: the worker's task.

Reading and editing single tactics (``ITimingCache::queryKeys``, ``update``, from 10.8) has not been
run on hardware.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import EngineBuildError

from ._child import ask
from ._cuda import started
from ._timing import read_entries, take_cache, write_entries

_HINT = "measure anew: build without the caches of other builds"
_COMBINED = "combined"


def run(
    trt: Any, job: Mapping[str, Any], folder: Path, report: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """Combines ``cache.0`` … of ``folder`` into ``combined``, with the job's ``entries`` written
    into it (``op`` "edit") or not ("combine"), or only reads it ("read"); answers what it holds as
    ``entries``, None where that cannot be read.

    Raises:
        EngineBuildError: one is damaged, or of another TensorRT or GPU; or an entry cannot be
            written.
        DeviceError: there is no GPU for this TensorRT.
    """
    log, builder = started(trt, "Builder")
    config = builder.create_builder_config()
    editable = getattr(trt.BuilderFlag, "EDITABLE_TIMING_CACHE", None)
    if editable is not None:
        config.set_flag(editable)
    caches = []
    for index in range(job["count"]):
        cache, problem, _ = take_cache(config, log, (folder / f"cache.{index}").read_bytes())
        if problem is not None:
            raise EngineBuildError(f"timing cache {index} {problem}", hint=_HINT)
        caches.append(cache)
    first, *others = caches
    for index, other in enumerate(others, 1):
        before = len(log.errors)
        if not first.combine(other, False):
            said = "; ".join(log.errors[before:]) or "TensorRT gave no reason"
            raise EngineBuildError(
                f"timing cache {index} does not go together with the first: {said}", hint=_HINT
            )
        del log.errors[before:]
    if job["op"] == "edit":
        write_entries(trt, first, job["entries"])
    if job["op"] != "read":
        (folder / _COMBINED).write_bytes(bytes(first.serialize()))
    return {"entries": read_entries(trt, first)}


def combine(blobs: Sequence[bytes], module: str = "tensorrt") -> bytes:
    """One timing cache of several of one TensorRT and GPU, made in a child process; of what several
    have, the first one's stays.

    Raises:
        EngineBuildError: they do not belong together, or one is damaged.
        DeviceError: there is no such TensorRT, or no GPU.
    """
    with tempfile.TemporaryDirectory(prefix="trtpack-") as folder:
        path = Path(folder) / _COMBINED
        _asked("combine", blobs, module, {_COMBINED: path})
        return path.read_bytes()


def edit(
    blob: bytes, entries: Sequence[Mapping[str, Any]], module: str = "tensorrt"
) -> tuple[bytes, tuple[dict[str, Any], ...]]:
    """A timing cache with these tactics instead of its own for their keys, and all it holds then;
    written in a child process.

    Raises:
        EngineBuildError: it is damaged, of another TensorRT or GPU, or has no such key.
        DeviceError: there is no such TensorRT, or no GPU.
    """
    with tempfile.TemporaryDirectory(prefix="trtpack-") as folder:
        path = Path(folder) / _COMBINED
        given = [dict(entry) for entry in entries]
        answer = _asked("edit", [blob], module, {_COMBINED: path}, given)
        return path.read_bytes(), tuple(answer["entries"])


def read(blob: bytes, module: str = "tensorrt") -> tuple[dict[str, Any], ...] | None:
    """What a timing cache of this TensorRT and GPU holds, read in a child process; None before
    TensorRT 10.8.

    Raises:
        EngineBuildError: it is damaged, or of another TensorRT or GPU.
        DeviceError: there is no such TensorRT, or no GPU.
    """
    entries = _asked("read", [blob], module, {})["entries"]
    return None if entries is None else tuple(entries)


def _asked(
    op: str,
    blobs: Sequence[bytes],
    module: str,
    outputs: Mapping[str, Path],
    entries: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    return ask(
        module,
        "tactics",
        {"op": op, "count": len(blobs), "entries": list(entries)},
        name="timing caches",
        inputs={f"cache.{index}": blob for index, blob in enumerate(blobs)},
        outputs=outputs,
    )
