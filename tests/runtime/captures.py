# SPDX-License-Identifier: Apache-2.0
"""A double of CUDA graphs for whatever PyTorch does on the CPU.

While a graph is captured, operators that write into tensors are noted and not run; others are run
for the memory they answer, and noted. A replay runs what was noted, in the same memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trtpack_runtime.engines import _streams


class Graph:
    """A captured graph."""

    def __init__(self, gpu: Gpu) -> None:
        self.work: list[Callable[[], object]] = []
        self._gpu = gpu

    def replay(self) -> None:
        self._gpu.notes.append("replays")
        for work in self.work:
            work()


class _Recording(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self._graph.work.append(lambda: func(*args, **kwargs))
            return args[0]
        answer = func(*args, **kwargs)
        if any(returned.alias_info for returned in func._schema.returns):
            return answer  # a view of memory that is there already

        def again() -> None:
            for place, value in zip(tree_leaves(answer), tree_leaves(func(*args, **kwargs)),
                                    strict=True):  # fmt: skip
                place.copy_(value)

        self._graph.work.append(again)
        return answer


class Stream:
    """A stream that notes what it waited for."""

    def __init__(self, gpu: Gpu, name: str, number: int) -> None:
        self.name, self.cuda_stream, self._gpu = name, number, gpu

    def wait_stream(self, other: Stream) -> None:
        self._gpu.waits.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self._gpu.waits.append(f"the host waits for {self.name}")


class Gpu:
    """What happened, and how captures are to end."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waits: list[str] = []
        self.fails: str | None = None
        """A capture raises this as CUDA does."""
        self.stream = Stream(self, "the caller", 1)
        self.is_capturing = False
        self.engines: Any = None
        """The GPU of engines that are doubles too."""

    def named(self, handle: int) -> Stream:
        """The stream of a handle."""
        return Stream(self, {1: "the caller"}.get(handle, "another"), handle)

    def told(self) -> list[str]:
        """Captures and replays since the last time this was asked."""
        notes, self.notes = self.notes, []
        return notes

    @contextlib.contextmanager
    def capture(
        self, graph: Graph, *, pool: str, stream: Stream, capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "other threads may allocate meanwhile"
        assert pool == "one pool"
        engines: Any = self.engines or SimpleNamespace()
        engines.capturing_now, engines.under_capture = graph, True
        with _Recording(graph):
            yield
        engines.capturing_now, engines.under_capture = None, False
        if self.fails is not None:
            raise RuntimeError(self.fails)
        self.notes.append("captured")


def installed(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Replaces torch's CUDA graphs and streams."""
    gpu = Gpu()
    doubles = {
        "CUDAGraph": lambda: Graph(gpu),
        "graph": gpu.capture,
        "graph_pool_handle": lambda: "one pool",
        "ExternalStream": lambda handle, device: gpu.named(handle),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: gpu.stream,
    }
    for name, double in doubles.items():
        monkeypatch.setattr(torch.cuda, name, double)
    monkeypatch.setattr(_streams, "_capture_stream", lambda index: Stream(gpu, "the capture", 2))
    raw = {
        "_cuda_getDevice": lambda: -1,
        "_cuda_getCurrentRawStream": lambda index: gpu.stream.cuda_stream,
        "_cuda_isCurrentStreamCapturing": lambda: gpu.is_capturing,
    }
    for name, double in raw.items():
        monkeypatch.setattr(torch._C, name, double, raising=False)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    return gpu
