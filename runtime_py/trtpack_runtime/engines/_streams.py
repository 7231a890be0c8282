# SPDX-License-Identifier: Apache-2.0
"""The current device and stream, and new tensors there, as cheaply as PyTorch has them.

Each of these runs in every call of an engine. The functions with a leading underscore are those
that PyTorch's own compiled code uses, in 2.3 and since; where one is missing, the public one does
the same and takes longer.

Sources: CUDA driver API, "Memory Management" (``cuMemcpyDtoDAsync``); CUDA programming guide,
"Default Stream": work on the legacy default stream waits for what
was enqueued before on any *blocking* stream, and work on such a stream waits for the former.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ._profiles import Shape

CAPTURES = threading.Lock()
"""One capture at a time: each begins by waiting for the whole device, which is not allowed while
another one is under way."""

Empty = Callable[[Shape, Shape, torch.dtype], torch.Tensor]
Address = int | ctypes.c_void_p
"""Python's numbers are made into those of ``ctypes`` at every call; what stays is made once."""
Memcpy = Callable[[Address, Address, ctypes.c_size_t, int], int]
"""Copies bytes within the GPU: to, from, how many, on which stream. It answers an error code, or
0."""


class Streams:
    """A device's streams, by their handles; 0 is the default stream.

    ``index`` is the device's number, ``here()`` that of the current device, ``current(index)`` the
    current stream of a device; ``capturing()`` says whether the current stream is being captured.
    ``empty(size, strides, dtype)`` is a new tensor on the current device.
    """

    def __init__(self, device: torch.device) -> None:
        raw, self.device = torch._C, device
        self.index = _index(device)
        self.here: Callable[[], int] = getattr(raw, "_cuda_getDevice", torch.cuda.current_device)
        self.current: Callable[[int], int] = getattr(raw, "_cuda_getCurrentRawStream", _handle)
        self.capturing: Callable[[], bool] = getattr(
            raw, "_cuda_isCurrentStreamCapturing", torch.cuda.is_current_stream_capturing
        )
        self.empty = _empty(device)
        self._wrapped: dict[int, Any] = {}

    def aside(self) -> int:
        """A stream to work on for callers on the default stream, which TensorRT would synchronise.

        CUDA itself has its work wait for the default stream's. All engines of a device share it,
        since it does not wait for another of its kind. Where CUDA gives none it is the default
        stream itself, which is right too, but slower.
        """
        return _blocking_stream(self.index)

    def on(self) -> Any:
        """Makes the device the current one within a block."""
        return torch.cuda.device(self.device)

    def now(self) -> Any:
        """The current stream of the device."""
        return self.of(self.current(self.index))

    def for_captures(self) -> Any:
        """The stream that graphs are captured on; whoever uses it holds ``CAPTURES``."""
        return _capture_stream(self.index)

    def graph(self) -> Any:
        """A CUDA graph without work."""
        return torch.cuda.CUDAGraph()

    def capture(self, graph: Any, stream: Any) -> Any:
        """Captures what is enqueued within a block; other threads may allocate meanwhile."""
        return torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")

    def at_once(self, work: Callable[[], None]) -> Callable[[], None]:
        """What launches PyTorch's work on the current stream at once; it is done once here.

        The work allocates nothing and waits for nothing.
        """
        work()
        graph, current = self.graph(), self.now()
        with CAPTURES:
            stream = self.for_captures()
            stream.wait_stream(current)
            with self.capture(graph, stream):
                work()
            current.wait_stream(stream)
        replay: Callable[[], None] = graph.replay
        return replay

    def memcpy(self) -> Memcpy | None:
        """The driver's own copy, which for one tensor is quicker than PyTorch's; None where there
        is no driver."""
        return _memcpy()

    def event(self) -> Any:
        """A new event."""
        return torch.cuda.Event()

    def of(self, handle: int) -> Any:
        """PyTorch's stream of a handle."""
        stream = self._wrapped.get(handle)
        if stream is None:
            default = torch.cuda.default_stream
            stream = (
                torch.cuda.ExternalStream(handle, self.device) if handle else default(self.device)
            )
            self._wrapped[handle] = stream
        return stream


def _index(device: torch.device) -> int:
    """A device's number; -1 is the CPU's, as ``Tensor.get_device`` has it."""
    if device.type == "cpu":
        return -1
    if device.index is None:
        return torch.cuda.current_device() if torch.cuda.is_available() else 0
    return device.index


def _handle(index: int) -> int:
    return int(torch.cuda.current_stream(index).cuda_stream)


def _empty(device: torch.device) -> Empty:
    """The quickest way to a new tensor on the current device."""
    guards = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    quick: Empty | None = getattr(guards, f"_empty_strided_{device.type}", None)

    def public(size: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(size, strides, dtype=dtype, device=device)

    return quick or public


@cache
def _memcpy() -> Memcpy | None:
    try:
        enqueue = ctypes.CDLL("libcuda.so.1").cuMemcpyDtoDAsync_v2
    except (OSError, AttributeError):
        return None
    enqueue.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    enqueue.restype = ctypes.c_int
    return enqueue


@cache
def _blocking_stream(index: int) -> int:
    """A stream that CUDA orders with the default stream; it lives as long as the process."""
    create = getattr(torch.cuda.cudart(), "cudaStreamCreate", None)
    handle = ctypes.c_void_p()
    with torch.cuda.device(index):
        made = create is not None and int(create(ctypes.addressof(handle))) == 0
    return handle.value or 0 if made else 0


@cache
def _capture_stream(index: int) -> Any:
    """One stream of PyTorch's few for all captures, so that they take no caller's."""
    return torch.cuda.Stream(index)
