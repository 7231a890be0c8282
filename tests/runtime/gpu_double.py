# SPDX-License-Identifier: Apache-2.0
"""A double of a GPU's streams, events and CUDA graphs, for engines whose memory is the host's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from trtpack_runtime.engines import _streams

CPU = torch.device("cpu")


class Stream:
    """A stream that notes what it waited for."""

    def __init__(self, name: str, journal: list[str], handle: int = 7) -> None:
        self.cuda_stream, self.name, self._journal = handle, name, journal

    def synchronize(self) -> None:
        self._journal.append(f"the host waits for {self.name}")

    def wait_stream(self, other: Stream) -> None:
        self._journal.append(f"{self.name} waits for {other.name}")


class Event:
    """An event, which stands for the stream it was recorded on last."""

    def __init__(self) -> None:
        self.on: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.on = stream

    def synchronize(self) -> None:
        assert self.on is not None, "an event that was never recorded is not waited for"
        self.on.synchronize()

    def wait(self, stream: Stream) -> None:
        assert self.on is not None, "an event that was never recorded is not waited for"
        stream.wait_stream(self.on)


class Gpu(_streams.Streams):
    """A GPU whose memory is the host's: streams note what happens, graphs what was enqueued.

    The caller is on the default stream until ``on`` says otherwise; ``under_capture`` is whether
    the caller captures.
    """

    def __init__(self) -> None:
        super().__init__(CPU)
        self.journal: list[str] = []
        self.under_capture = False
        self.fails: str | None = None
        """A capture raises this as CUDA does."""
        self.recorded: list[tuple[int, str]] = []
        """Addresses that the allocator was told of, and the stream."""
        self.copies: _streams.Memcpy | None = None
        """The driver's copy, where a binding of CUDA is installed."""
        self._threads = threading.local()
        self._named: dict[str, Stream] = {}
        self._stream("the caller", 0)
        self._stream("the engine", 7)
        self.here = lambda: -1
        self.current = lambda index: self._now().cuda_stream
        self.capturing = lambda: self.under_capture

    def caller_on(self, name: str) -> None:
        """This thread goes on on a stream of its own."""
        self._threads.stream = self._stream(name)

    def memcpy(self) -> _streams.Memcpy | None:
        return self.copies

    def told(self) -> list[str]:
        """What engines did since the last time this was asked."""
        notes = [note for note in self.journal if note in ("runs", "captured", "replays")]
        del self.journal[:]
        return notes

    @property
    def capturing_now(self) -> Graph | None:
        """What this thread captures into."""
        return getattr(self._threads, "graph", None)

    @capturing_now.setter
    def capturing_now(self, graph: Graph | None) -> None:
        self._threads.graph = graph

    def _now(self) -> Stream:
        return getattr(self._threads, "stream", self._named["the caller"])

    def _stream(self, name: str, handle: int | None = None) -> Stream:
        if name not in self._named:
            number = 100 + len(self._named) if handle is None else handle
            self._named[name] = Stream(name, self.journal, number)
        return self._named[name]

    def aside(self) -> int:
        return 7

    def on(self) -> Any:
        return nullcontext()

    def of(self, handle: int) -> Any:
        return next(s for s in self._named.values() if s.cuda_stream == handle)

    def for_captures(self) -> Any:
        return self._stream("the capture")

    def at_once(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return work

    def event(self) -> Any:
        return Event()

    def graph(self) -> Any:
        return Graph(self.journal)

    @contextmanager
    def capture(self, graph: Graph, stream: Stream) -> Iterator[None]:
        self.capturing_now = graph
        try:
            yield
        finally:
            self.capturing_now = None
        if self.fails is not None:
            raise RuntimeError(self.fails)


class Graph:
    """A captured graph: what contexts enqueued, with the addresses they had then."""

    def __init__(self, journal: list[str]) -> None:
        self.work: list[Callable[[], None]] = []
        self._journal = journal

    def replay(self) -> None:
        self._journal.append("replays")
        for work in self.work:
            work()


def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU of every runner that a test makes from now on."""
    made = Gpu()
    monkeypatch.setattr(_streams, "Streams", lambda device: made)

    def record(tensor: torch.Tensor, stream: Stream) -> None:
        made.recorded.append((tensor.data_ptr(), stream.name))

    monkeypatch.setattr(torch.Tensor, "record_stream", record)
    return made
