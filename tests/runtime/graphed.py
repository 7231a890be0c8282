# SPDX-License-Identifier: Apache-2.0
"""Modules whose whole programs are replayed as CUDA graphs of a double."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tests.runtime.captures import Gpu
from trtpack_runtime.execution import LoadedSegment, Segments
from trtpack_runtime.module import BundleModule
from trtpack_runtime.whole_graph import WholeGraphs, whole_graphs


class Runner:
    """A segment that may be captured, an engine with lanes."""

    capturable = True
    refits = 0

    def __init__(self, segment: LoadedSegment, gpu: Gpu) -> None:
        self._segment, self._gpu = segment, gpu
        self._is_apart, self.lanes = False, 0
        self.keepers: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not self._is_apart:
            self._gpu.notes.append("runs")
        return self._segment.run(inputs)

    def lane(self) -> str:
        """A context of its own."""
        self.lanes += 1
        return f"a lane of {self._segment.name}"

    @contextlib.contextmanager
    def on(self, lane: str, keeper: Any) -> Iterator[None]:
        """Calls run on the lane."""
        assert lane == f"a lane of {self._segment.name}"
        self._is_apart = True
        self.keepers.add(keeper)
        try:
            yield
        finally:
            self._is_apart = False


def graphed(module: BundleModule, gpu: Gpu, **options: Any) -> BundleModule:
    """The module with graphs as on a GPU."""
    segments = module._loaded.segments.watched(lambda segment: Runner(segment, gpu))
    module._loaded = module._compiled(segments)
    for name, call in module._loaded.calls.items():
        call.graphs = made(module, segments, name, **options)
    return module


def made(
    module: BundleModule, segments: Segments, name: str = "forward", **options: Any
) -> WholeGraphs | None:
    given = {"loud": False, "size": 8, **options}
    program, stored = module._programs[name], module._loaded.stored
    return whole_graphs(program, segments, stored, torch.device("cpu"), **given)


def some(rows: int = 2, inputs: int = 2) -> list[torch.Tensor]:
    return [torch.randn(rows, 4) for _ in range(inputs)]
