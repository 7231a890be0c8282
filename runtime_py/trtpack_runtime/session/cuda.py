# SPDX-License-Identifier: Apache-2.0
"""CUDA's runtime API without torch: memory, streams, events and graphs; errors are exceptions.

It is whichever binding is installed: ``cuda.bindings.runtime`` (cuda-bindings 12 and 13) or
``cuda.cudart`` (cuda-python 11 and 12), else CUDA's library by ctypes (``cudart.py``). All answer
tuples that begin with an error code.

Source: CUDA runtime API, "Memory Management", "Stream Management", "Graph Management".
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from ..engines._cuda import problem
from ..errors import DeviceError
from .cudart import library

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
_NOT_READY = 600
_NON_BLOCKING = 1
_NO_TIMING = 2
_PORTABLE = 1


def api() -> Any:
    """The first binding of CUDA's runtime API that is installed, else the library itself.

    Raises:
        DeviceError: there is neither.
    """
    for name in MODULES:
        try:
            return import_module(name)
        except (ImportError, OSError, RuntimeError):
            continue
    found = library()
    if found is None:
        raise DeviceError(
            "there is no Python binding of CUDA and no libcudart, one of which running without "
            "PyTorch takes",
            hint="install one: pip install cuda-bindings, of the CUDA release TensorRT is for",
        )
    return found


class Cuda:
    """CUDA on one GPU. Addresses are numbers; streams, events and graphs what the binding answers.

    Calls may come from any thread; ``use`` has to be called first in each.
    """

    def __init__(self, api: Any, index: int) -> None:
        """Starts CUDA on GPU ``index``.

        Raises:
            DeviceError: there is no such GPU, or no driver that serves this binding.
        """
        self._api, self.index = api, index
        try:
            count = self._call("cudaGetDeviceCount")
        except RuntimeError as error:  # the binding of CUDA 11 cannot even ask
            raise DeviceError(
                f"CUDA does not start: {error}", hint="install the NVIDIA driver of this machine"
            ) from error
        if not 0 <= index < count:
            raise DeviceError(
                f"there is no GPU {index}, this machine has {count}",
                hint="count from 0, see the GPUs with trtpack doctor",
            )
        self._set = api.cudaSetDevice
        self._several = count > 1
        self._succeed(self._set(index), "take the GPU")
        kinds = api.cudaMemcpyKind
        self._copy = api.cudaMemcpyAsync
        self._in, self._out = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._within = kinds.cudaMemcpyDeviceToDevice
        self._mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._launch = api.cudaGraphLaunch

    def use(self) -> None:
        """Makes the GPU this thread's, where there are several."""
        if self._several:
            self._succeed(self._set(self.index), "take the GPU")

    # --- memory ----------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> int:
        """Memory of the GPU, aligned to 256 bytes."""
        return int(self._call("cudaMalloc", nbytes, of=f"{nbytes} bytes of GPU memory"))

    def free_bytes(self) -> int:
        """How much of the GPU's memory nobody has."""
        code, free, _ = self._api.cudaMemGetInfo()
        self._succeed((code,), "see what memory is free")
        return int(free)

    def free(self, address: int) -> None:
        """Gives it back, when the GPU is done with it."""
        self._call("cudaFree", address)

    def allocate_host(self, nbytes: int) -> int:
        """Pinned memory of the host, which the GPU copies from and to by itself."""
        return int(self._call("cudaHostAlloc", nbytes, _PORTABLE, of=f"{nbytes} pinned bytes"))

    def free_host(self, address: int) -> None:
        """Gives pinned memory back."""
        self._call("cudaFreeHost", address)

    def copy_in(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        """Copies from the host to the GPU, on a stream."""
        self._succeed(self._copy(to, source, nbytes, self._in, stream), "copy to the GPU")

    def copy_out(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        """Copies from the GPU to the host, on a stream."""
        self._succeed(self._copy(to, source, nbytes, self._out, stream), "copy from the GPU")

    def copy_within(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        """Copies within the GPU, on a stream."""
        self._succeed(self._copy(to, source, nbytes, self._within, stream), "copy on the GPU")

    # --- streams and events ----------------------------------------------------------------------
    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def end_stream(self, stream: Any) -> None:
        """Gives a stream back."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        """Has the host wait until a stream has done all it was given."""
        self._call("cudaStreamSynchronize", stream, of="the GPU's work")

    def new_event(self, *, timed: bool = False) -> Any:
        """An event, which is faster without a time."""
        return self._call("cudaEventCreateWithFlags", 0 if timed else _NO_TIMING)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two timed events that have happened."""
        return float(self._call("cudaEventElapsedTime", begin, end))

    def end_event(self, event: Any) -> None:
        """Gives an event back."""
        self._call("cudaEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        """Has an event happen when the stream has done what it was given so far."""
        self._call("cudaEventRecord", event, stream)

    def happened(self, event: Any) -> bool:
        """Whether an event has happened; raises what went wrong before it."""
        (code, *_) = self._api.cudaEventQuery(event)
        if int(code) == _NOT_READY:
            return False
        self._succeed((code,), "do what it was given")
        return True

    def wait_event(self, event: Any) -> None:
        """Has the host wait for an event."""
        self._call("cudaEventSynchronize", event, of="the GPU's work")

    def order(self, later: Any, event: Any) -> None:
        """Has a stream wait for an event."""
        self._call("cudaStreamWaitEvent", later, event, 0)

    # --- graphs ----------------------------------------------------------------------------------
    def capture(self, work: Callable[[], None], stream: Any) -> Any:
        """What ``work`` gives the stream, as a graph to launch; nothing of it runs now."""
        self._call("cudaStreamBeginCapture", stream, self._mode)
        try:
            work()
        except BaseException:
            code, graph = self._api.cudaStreamEndCapture(stream)
            if not code:
                self._api.cudaGraphDestroy(graph)
            self._api.cudaGetLastError()  # what the broken capture left there
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Has a stream do what a graph holds."""
        self._succeed(self._launch(graph, stream), "launch a graph")

    def end_graph(self, graph: Any) -> None:
        """Gives a graph back."""
        self._call("cudaGraphExecDestroy", graph)

    # --- errors ----------------------------------------------------------------------------------
    def _call(self, name: str, *arguments: Any, of: str = "") -> Any:
        """Calls a function of the API and answers what it gives beside the code."""
        code, *rest = getattr(self._api, name)(*arguments)
        if code:
            self._fail(code, f"{name} failed" + (f" for {of}" if of else ""))
        return rest[0] if rest else None

    def _succeed(self, answer: Any, what: str) -> None:
        if answer[0]:
            self._fail(answer[0], f"cannot {what}")

    def _fail(self, code: Any, what: str) -> NoReturn:
        number = int(code)
        name, text = (self._text(f, code) for f in ("cudaGetErrorName", "cudaGetErrorString"))
        self._api.cudaGetLastError()  # one that does not last is not to be found again later
        known = problem(number)
        lead, hint = known or ("", "run trtpack doctor to see what this device has")
        raise DeviceError(f"{f'{lead}: ' if lead else ''}{what}: {name}, {text}", hint=hint)

    def _text(self, name: str, code: Any) -> str:
        (_, text) = getattr(self._api, name)(code)
        return text.decode() if isinstance(text, bytes) else str(text)
