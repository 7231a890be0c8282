# SPDX-License-Identifier: Apache-2.0
"""A double of ``cuda.bindings.runtime`` over the host's memory.

A stream does nothing until somebody waits for it, so whoever forgets to wait reads garbage: new
memory is filled with it. Copies are held against what is allocated, and everything that is not
given back, or given back twice, is found. That real CUDA does the same is shown on a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any

GARBAGE = 0xAB


class Error(IntEnum):
    """``cudaError_t``, as much of it as is needed."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorIllegalAddress = 700
    cudaErrorNotReady = 600
    cudaErrorStreamCaptureUnsupported = 900


class _Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class _Mode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class _Handle:
    """A stream, event or graph, which is a number to whoever asks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


class _Stream(_Handle):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.work: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.thread = 0


class _Event(_Handle):
    stream: _Stream | None = None
    happened = True


class CudaDouble:
    """The module. ``fails`` maps a function to the code it answers; ``free_bytes`` limits memory;
    ``journal`` has what was enqueued, in order."""

    cudaMemcpyKind = _Kind
    cudaStreamCaptureMode = _Mode

    def __init__(self, gpus: int = 1, free_bytes: int = 1 << 30) -> None:
        self.gpus, self.free_bytes, self.fails = gpus, free_bytes, dict[str, Error]()
        self.device_memory: dict[int, Any] = {}
        self.host_memory: dict[int, Any] = {}
        self.handles: dict[int, _Handle] = {}
        self.journal: list[str] = []
        self.wrong: list[str] = []
        self.allocations = 0
        self._next, self._lock = 100, threading.RLock()
        self._fault: Error | None = None

    # --- what tests ask --------------------------------------------------------------------------
    def leaked(self) -> list[str]:
        """What was not given back."""
        counts = {
            "device": len(self.device_memory),
            "pinned": len(self.host_memory),
            "handles": len(self.handles),
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def holds(self, address: int, nbytes: int) -> bool:
        """Whether memory of the GPU is there."""
        return _within(self.device_memory, address, nbytes)

    def device_buffer(self, data: bytes) -> int:
        """Memory of the GPU that somebody else allocated, with contents."""
        _, address = self.cudaMalloc(len(data))
        ctypes.memmove(address, data, len(data))
        return address

    def enqueue(self, stream: int, work: Callable[[], None], note: str) -> None:
        """Has a stream do something."""
        with self._lock:
            self.journal.append(note)
            held = self._stream(stream)
            (held.work if held.captured is None else held.captured).append(work)

    def fault(self, code: Error = Error.cudaErrorIllegalAddress) -> None:
        """Breaks the context as a kernel does that reads where it must not."""
        self._fault = code

    # --- devices and errors ----------------------------------------------------------------------
    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._code("cudaGetDeviceCount"), self.gpus

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        return (self._code("cudaSetDevice"),)

    def cudaGetErrorName(self, code: Error) -> tuple[Any, ...]:
        return Error.cudaSuccess, code.name.encode()

    def cudaGetErrorString(self, code: Error) -> tuple[Any, ...]:
        return Error.cudaSuccess, b"in words"

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (Error.cudaSuccess,)

    # --- memory ----------------------------------------------------------------------------------
    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        code = self._code("cudaMalloc") or self._not_in_capture("cudaMalloc")
        if not code and sum(map(len, [*self.device_memory.values()])) + size > self.free_bytes:
            code = Error.cudaErrorMemoryAllocation
        self.allocations += 1
        return code, None if code else _taken(self.device_memory, size)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        taken = sum(map(len, [*self.device_memory.values()]))
        return self._code("cudaMemGetInfo"), max(0, self.free_bytes - taken), self.free_bytes

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return (self._code("cudaFree") or self._given_back(self.device_memory, address),)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        code = self._code("cudaHostAlloc") or self._not_in_capture("cudaHostAlloc")
        return code, None if code else _taken(self.host_memory, size)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return (self._code("cudaFreeHost") or self._given_back(self.host_memory, address),)

    def cudaMemcpyAsync(
        self, to: int, source: int, count: int, kind: _Kind, stream: Any
    ) -> tuple[Any, ...]:
        """A copy from or to memory that is not pinned does not wait for the stream, as in CUDA."""
        if code := self._code("cudaMemcpyAsync"):
            return (code,)
        if to == source:
            self.wrong.append(f"a copy of {to:#x} to itself")
        to_gpu = kind is not _Kind.cudaMemcpyDeviceToHost
        from_gpu = kind is not _Kind.cudaMemcpyHostToDevice
        if not self._right(to, count, to_gpu) or not self._right(source, count, from_gpu):
            return (Error.cudaErrorInvalidValue,)
        pinned = _within(self.host_memory, source if to_gpu else to, count)
        if not from_gpu and not pinned:
            staged = ctypes.string_at(source, count)
            self.enqueue(int(stream), lambda: ctypes.memmove(to, staged, count), "copy in")
        else:
            note = f"copy {'within' if to_gpu and from_gpu else 'in' if to_gpu else 'out'}"
            ours = [at for at, there in ((to, to_gpu), (source, from_gpu)) if there or pinned]
            self.enqueue(int(stream), lambda: self._move(to, source, count, ours), note)
        if not to_gpu and not pinned:
            self._drain(stream)
        return (Error.cudaSuccess,)

    # --- streams and events ----------------------------------------------------------------------
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == 1, "a stream that waits for the default one is slow"
        code = self._code("cudaStreamCreateWithFlags")
        return code, None if code else self._made(_Stream)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        return self._ended(stream)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        code = self._code("cudaStreamSynchronize") or self._not_in_capture("cudaStreamSynchronize")
        if not code:
            self._drain(stream)
        return (code or self._fault or Error.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        code = self._code("cudaEventCreateWithFlags")
        return code, None if code else self._made(_Event)

    def cudaEventDestroy(self, event: Any) -> tuple[Any, ...]:
        return self._ended(event)

    def cudaEventRecord(self, event: _Event, stream: Any) -> tuple[Any, ...]:
        event.stream, event.happened = self._stream(stream), False
        self.enqueue(int(stream), lambda: setattr(event, "happened", True), "event")
        return (self._code("cudaEventRecord"),)

    def cudaEventSynchronize(self, event: _Event) -> tuple[Any, ...]:
        if not event.happened and event.stream is not None:
            self._drain(event.stream, event)
        return (self._code("cudaEventSynchronize") or self._fault or Error.cudaSuccess,)

    def cudaEventQuery(self, event: _Event) -> tuple[Any, ...]:
        if self._fault is not None:
            return (self._fault,)
        return (Error.cudaSuccess if event.happened else Error.cudaErrorNotReady,)

    def cudaEventElapsedTime(self, start: _Event, end: _Event) -> tuple[Any, ...]:
        return self._code("cudaEventElapsedTime"), 1.5

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> tuple[Any, ...]:
        self.journal.append(f"stream {int(stream)} waits")
        return (self._code("cudaStreamWaitEvent"),)

    # --- graphs ----------------------------------------------------------------------------------
    def cudaStreamBeginCapture(self, stream: Any, mode: _Mode) -> tuple[Any, ...]:
        code = self._code("cudaStreamBeginCapture")
        assert mode == _Mode.cudaStreamCaptureModeThreadLocal, "others may allocate meanwhile"
        held = self._stream(stream)
        held.captured, held.thread = None if code else [], threading.get_ident()
        return (code,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        held = self._stream(stream)
        work, held.captured = held.captured, None
        if code := self._code("cudaStreamEndCapture"):
            return code, None
        graph = self._made(_Handle)
        graph.work = work  # type: ignore[attr-defined]  # only graphs have work
        return Error.cudaSuccess, graph

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> tuple[Any, ...]:
        if code := self._code("cudaGraphInstantiateWithFlags"):
            return code, None
        made = self._made(_Handle)
        made.work = graph.work  # type: ignore[attr-defined]  # only graphs have work
        return Error.cudaSuccess, made

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._ended(graph)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._ended(graph)

    def cudaGraphLaunch(self, graph: Any, stream: Any) -> tuple[Any, ...]:
        if code := self._code("cudaGraphLaunch"):
            return (code,)
        self.enqueue(int(stream), lambda: [work() for work in graph.work] and None, "graph")
        return (Error.cudaSuccess,)

    # --- within ----------------------------------------------------------------------------------
    def _code(self, name: str) -> Error:
        return self.fails.get(name, Error.cudaSuccess)

    def _stream(self, stream: Any) -> _Stream:
        """The stream itself or its number."""
        held = self.handles[int(stream)]
        assert isinstance(held, _Stream)
        return held

    def _not_in_capture(self, name: str) -> Error:
        """A thread that captures may not; others may, in the mode that is asked for."""
        streams = [handle for handle in [*self.handles.values()] if isinstance(handle, _Stream)]
        here = threading.get_ident()
        if any(stream.captured is not None and stream.thread == here for stream in streams):
            self.wrong.append(f"{name} while a graph is captured")
            return Error.cudaErrorStreamCaptureUnsupported
        return Error.cudaSuccess

    def _made(self, kind: Any) -> Any:
        with self._lock:
            self._next += 1
            self.handles[self._next] = kind(self._next)
            return self.handles[self._next]

    def _ended(self, handle: Any) -> tuple[Any, ...]:
        if self.handles.pop(int(handle), None) is None:
            self.wrong.append(f"{type(handle).__name__} ended twice")
            return (Error.cudaErrorInvalidValue,)
        return (Error.cudaSuccess,)

    def _given_back(self, memory: dict[int, Any], address: int) -> Error:
        for handle in list(self.handles.values()):
            if isinstance(handle, _Stream):
                self._drain(handle)
        if memory.pop(address, None) is None:
            self.wrong.append(f"{address:#x} freed twice, or never allocated")
            return Error.cudaErrorInvalidValue
        return Error.cudaSuccess

    def _right(self, address: int, nbytes: int, on_gpu: bool) -> bool:
        if self.holds(address, nbytes) is not on_gpu:
            self.wrong.append(f"a copy of {nbytes} bytes at {address:#x}, on the GPU: {on_gpu}")
            return False
        return True

    def _move(self, to: int, source: int, count: int, ours: list[int]) -> None:
        for address in ours:
            memory = {**self.device_memory, **self.host_memory}
            if not _within(memory, address, count):
                self.wrong.append(f"a copy at {address:#x}, which is gone")
                return
        ctypes.memmove(to, source, count)

    def _drain(self, stream: Any, until: _Event | None = None) -> None:
        with self._lock:
            held = self.handles.get(int(stream))
            while isinstance(held, _Stream) and held.work:
                held.work.pop(0)()
                if until is not None and until.happened:
                    return


def _taken(memory: dict[int, Any], size: int) -> int:
    buffer = (ctypes.c_uint8 * (size + 512))()
    ctypes.memset(buffer, GARBAGE, size + 512)
    address = -(-ctypes.addressof(buffer) // 256) * 256
    memory[address] = _Sized(buffer, size)
    return address


class _Sized:
    def __init__(self, buffer: Any, size: int) -> None:
        self.buffer, self.size = buffer, size

    def __len__(self) -> int:
        return self.size


def _within(memory: dict[int, Any], address: int, nbytes: int) -> bool:
    known = list(memory.items())  # other threads allocate meanwhile
    return any(at <= address and address + nbytes <= at + len(m) for at, m in known)
