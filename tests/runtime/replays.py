# SPDX-License-Identifier: Apache-2.0
"""Runners of the double that make graphs, and calls of them that are held to be right."""

from __future__ import annotations

import torch

from tests.runtime.gpu_double import Gpu
from tests.runtime.running import Trt, runner
from trtpack_runtime.engines._graph import GraphRunner


def graphs(gpu: Gpu, declared: str = "FLOAT", **more: object) -> GraphRunner:
    return runner(Trt(gpu), declared=declared, kind=GraphRunner, **more)


def right(run: GraphRunner, batch: int = 2) -> torch.Tensor:
    """Calls with new values, answers what came back once it is right."""
    x = torch.rand(batch, 3)
    (y,) = run([x])
    assert torch.equal(y, x * 2)
    return y
