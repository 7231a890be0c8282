# SPDX-License-Identifier: Apache-2.0
"""Timing caches of several builds made one, by the TensorRT they are of; a task of the worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import EngineBuildError

from ._child import ask
from ._cuda import started

_HINT = "measure anew: build without the caches of other builds"
_COMBINED = "combined"


def run(
    trt: Any, job: Mapping[str, Any], folder: Path, report: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """Combines ``cache.0`` … of ``folder`` into ``combined``.

    Raises:
        EngineBuildError: one is damaged, or of another TensorRT or GPU.
        DeviceError: there is no GPU for this TensorRT.
    """
    log, builder = started(trt, "Builder")
    config = builder.create_builder_config()
    editable = getattr(trt.BuilderFlag, "EDITABLE_TIMING_CACHE", None)
    if editable is not None:
        config.set_flag(editable)
    caches = []
    for index in range(job["count"]):
        cache = config.create_timing_cache((folder / f"cache.{index}").read_bytes())
        if cache is None or log.errors:
            raise EngineBuildError(_told(index, log.errors), hint=_HINT)
        caches.append(cache)
    first, *others = caches
    for index, other in enumerate(others, 1):
        if not first.combine(other, False) or log.errors:
            raise EngineBuildError(_told(index, log.errors), hint=_HINT)
    (folder / _COMBINED).write_bytes(bytes(first.serialize()))
    return {}


def combine(blobs: Sequence[bytes], module: str = "tensorrt") -> bytes:
    """One timing cache of several of one TensorRT and GPU, made in a child process.

    Raises:
        EngineBuildError: they do not belong together, or one is damaged.
        DeviceError: there is no such TensorRT, or no GPU.
    """
    with tempfile.TemporaryDirectory(prefix="trtpack-") as folder:
        path = Path(folder) / _COMBINED
        ask(
            module,
            "tactics",
            {"op": "combine", "count": len(blobs)},
            name="timing caches",
            inputs={f"cache.{index}": blob for index, blob in enumerate(blobs)},
            outputs={_COMBINED: path},
        )
        return path.read_bytes()


def _told(index: int, errors: Sequence[str]) -> str:
    said = "; ".join(errors[-3:])
    return f"timing cache {index} is damaged, or of another TensorRT or GPU: {said}".rstrip(": ")
