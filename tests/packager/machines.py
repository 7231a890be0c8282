# SPDX-License-Identifier: Apache-2.0
"""Facts of machines that tests stand on, as ``trtpack_runtime.device.facts`` gives them."""

from __future__ import annotations

from typing import Any

GIB = 1 << 30
H200 = {
    "index": 0,
    "name": "NVIDIA H200",
    "sm": "9.0",
    "memory_bytes": 150_754_820_096,
    "multiprocessors": 132,
    "integrated": False,
}
ADA = {**H200, "name": "NVIDIA GeForce RTX 4090", "sm": "8.9", "memory_bytes": 24 * GIB}
ORIN = {**H200, "name": "Orin", "sm": "8.7", "memory_bytes": 61 * GIB, "integrated": True}


def facts(**changes: Any) -> dict[str, Any]:
    """An x86 host with an H200 and TensorRT 8.6."""
    return {
        "os": "linux",
        "os_release": "Ubuntu 24.04 LTS",
        "arch": "x86_64",
        "python": "3.12.3",
        "runtime": "0.1.0",
        "torch": "2.11.0",
        "memory": {"total_bytes": 61 * GIB},
        "gpus": [H200],
        "driver": {"version": "580.1", "cuda": "13.0"},
        "tensorrt": "8.6.0",
        "tensorrt_rtx": None,
        "jetson": None,
        "problems": [],
        **changes,
    }


def without_gpu(**changes: Any) -> dict[str, Any]:
    """The same without a GPU, but with TensorRT-RTX."""
    none: dict[str, Any] = {"gpus": [], "driver": None, "tensorrt": None}
    return facts(**{**none, "tensorrt_rtx": "1.7.1.116", **changes})
