# SPDX-License-Identifier: Apache-2.0
"""Machines with TensorRT by their facts, and the records of engines that were built on them."""

from __future__ import annotations

from typing import Any

from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.engines.tensorrt import record_of

H200 = {
    "name": "NVIDIA H200",
    "sm": "9.0",
    "memory_bytes": 141 << 30,
    "multiprocessors": 132,
    "integrated": False,
}
FACTS: dict[str, Any] = {
    "os": "linux",
    "arch": "x86_64",
    "gpus": [H200],
    "driver": {"version": "575.51", "cuda": "12.9"},
    "tensorrt": "10.3.0",
    "tensorrt_cuda": None,
    "jetson": None,
    "problems": [],
}
ORIN = FACTS | {
    "arch": "aarch64",
    "gpus": [{"name": "Orin", "sm": "8.7", "multiprocessors": 16, "integrated": True}],
    "jetson": {"module": "p3701-0005"},
}


def record(facts: Any = FACTS, **options: Any) -> dict[str, Any]:
    """The record of an engine built on a machine with these facts."""
    return record_of(facts["tensorrt"], BuildOptions(**options), facts)


def on(base: dict[str, Any] = FACTS, gpu: dict[str, Any] | None = None, **facts: Any) -> Any:
    """A machine like another, but for some facts."""
    gpus = [base["gpus"][0] | gpu] if gpu else base["gpus"]
    return base | {"gpus": gpus} | facts
