# SPDX-License-Identifier: Apache-2.0
"""CUDA's own runtime library by ctypes, with the functions that ``cuda.py`` calls in the form of
``cuda.bindings.runtime``: for a device on which no binding is installed.

Source: CUDA runtime API, the signatures of ``cuda_runtime_api.h``; the functions are those that
every release from 11.4 to 13 has.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib")
_ADDRESS, _SIZE, _FLAGS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
_PLAIN: dict[str, tuple[Any, ...]] = {
    "cudaSetDevice": (ctypes.c_int,),
    "cudaGetLastError": (),
    "cudaFree": (_ADDRESS,),
    "cudaFreeHost": (_ADDRESS,),
    "cudaMemcpyAsync": (_ADDRESS, _ADDRESS, _SIZE, ctypes.c_int, _ADDRESS),
    "cudaStreamDestroy": (_ADDRESS,),
    "cudaStreamSynchronize": (_ADDRESS,),
    "cudaStreamWaitEvent": (_ADDRESS, _ADDRESS, _FLAGS),
    "cudaStreamBeginCapture": (_ADDRESS, ctypes.c_int),
    "cudaEventDestroy": (_ADDRESS,),
    "cudaEventRecord": (_ADDRESS, _ADDRESS),
    "cudaEventSynchronize": (_ADDRESS,),
    "cudaEventQuery": (_ADDRESS,),
    "cudaGraphDestroy": (_ADDRESS,),
    "cudaGraphExecDestroy": (_ADDRESS,),
    "cudaGraphLaunch": (_ADDRESS, _ADDRESS),
}
"""Functions that answer a code alone, with their parameters."""
_ANSWERS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "cudaGetDeviceCount": (ctypes.c_int, ()),
    "cudaMalloc": (_ADDRESS, (_SIZE,)),
    "cudaHostAlloc": (_ADDRESS, (_SIZE, _FLAGS)),
    "cudaStreamCreateWithFlags": (_ADDRESS, (_FLAGS,)),
    "cudaEventCreateWithFlags": (_ADDRESS, (_FLAGS,)),
    "cudaEventElapsedTime": (ctypes.c_float, (_ADDRESS, _ADDRESS)),
    "cudaGraphInstantiateWithFlags": (_ADDRESS, (_ADDRESS, ctypes.c_ulonglong)),
}
"""Functions that write what they answer to their first parameter, and the others."""


class cudaMemcpyKind(IntEnum):
    """As in CUDA's header."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    """As in CUDA's header."""

    cudaStreamCaptureModeThreadLocal = 1


class Library:
    """The library with functions that answer ``(code,)`` or ``(code, value)``."""

    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode

    def __init__(self, library: Any) -> None:
        """AttributeError where it lacks one of the functions."""
        self._library = library
        for name, takes in _PLAIN.items():
            setattr(self, name, self._plain(name, takes))
        for name, (answer, takes) in _ANSWERS.items():
            setattr(self, name, self._answering(name, answer, takes))
        self._end = _typed(library, "cudaStreamEndCapture", (_ADDRESS, ctypes.POINTER(_ADDRESS)))
        sizes = (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE))
        self._sizes = _typed(library, "cudaMemGetInfo", sizes)
        self._texts = {}
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            self._texts[name] = _typed(library, name, (ctypes.c_int,), ctypes.c_char_p)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, int]:
        """The graph is written to the last parameter."""
        graph = _ADDRESS()
        return self._end(stream, ctypes.byref(graph)), graph.value or 0

    def cudaMemGetInfo(self) -> tuple[int, int, int]:
        """The memory that is free, and all there is."""
        free, total = _SIZE(), _SIZE()
        code = self._sizes(ctypes.byref(free), ctypes.byref(total))
        return code, free.value, total.value

    def cudaGetErrorName(self, code: int) -> tuple[int, bytes]:
        """The error's name."""
        return 0, self._texts["cudaGetErrorName"](code)

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:
        """The error in words."""
        return 0, self._texts["cudaGetErrorString"](code)

    def _plain(self, name: str, takes: tuple[Any, ...]) -> Any:
        function = _typed(self._library, name, takes)
        return lambda *arguments: (function(*arguments),)

    def _answering(self, name: str, answer: Any, takes: tuple[Any, ...]) -> Any:
        function = _typed(self._library, name, (ctypes.POINTER(answer), *takes))

        def call(*arguments: Any) -> tuple[int, Any]:
            found = answer()
            return function(ctypes.byref(found), *arguments), found.value or 0

        return call


def library() -> Library | None:
    """CUDA's runtime library of this machine, one that its driver serves before any other; None
    where there is none that will do."""
    found = None
    for name in (*NAMES, *_places()):
        try:
            made = Library(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
        code, _ = made.cudaGetDeviceCount()  # type: ignore[attr-defined]  # set by its table
        if not code:
            return made
        found = found or made
    return found


def _places() -> Iterator[str]:
    """Where it is when the loader does not know of it: CUDA's folders, and NVIDIA's wheels."""
    folders = [Path(folder) for folder in _FOLDERS]
    for entry in sys.path:
        folders += sorted(Path(entry or ".").glob("nvidia/*/lib"))
    for folder in folders:
        yield from map(str, sorted(folder.glob("libcudart.so*")))


def _typed(library: Any, name: str, takes: tuple[Any, ...], answers: Any = ctypes.c_int) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = takes, answers
    return function
