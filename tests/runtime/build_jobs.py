# SPDX-License-Identifier: Apache-2.0
"""A job for a build in a child process, and what such a process leaves behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from trtpack_runtime.dims import dim
from trtpack_runtime.engines._build import BuildOptions
from trtpack_runtime.engines._child import BuildJob
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.safetensors import TensorView, write_safetensors
from trtpack_tools.recorder import Recorder

MODULE = "tensorrt_rtx"
CHAIN = 24


def chain(folder: Path) -> BuildJob:
    """A chain of products with a dynamic batch, enough for several seconds of building."""
    pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed here")
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 64)))
    views = []
    for index in range(CHAIN):
        name = f"layers.{index}.weight"
        value = torch.rand(64, 64, generator=torch.Generator().manual_seed(index))
        views.append(TensorView(name, "F32", (64, 64), memoryview(value.numpy()).cast("B")))
        weight = recorder.constant("FLOAT", (64, 64), name)
        (x,) = recorder.add(
            "matrix_multiply",
            {"input0": x, "input1": weight},
            {"op0": "NONE", "op1": "NONE"},
            name=f"layers.{index}",
        )
        (x,) = recorder.add("softmax", {"input": x}, {"axes": (1,)}, name=f"softmax.{index}")
    network = recorder.finish([x.name], [Profile({"x": ((1, 64), (4, 64), (8, 64))})])
    weights = folder / "weights.safetensors"
    write_safetensors(weights, views)
    return BuildJob(
        MODULE, network, (weights,), folder / "engine.plan", BuildOptions(("SM89",)), "forward_0"
    )


def left_behind(job: BuildJob) -> list[str]:
    """What lies beside the weights."""
    return sorted(path.name for path in job.plan.parent.iterdir())


def worker_pids() -> list[int]:
    """The workers that are children of this process, quicker than ``ps`` tells."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if b"trtpack_runtime.worker" in Path("/proc", pid, "cmdline").read_bytes():
                    found.append(int(pid))
    return found
