# SPDX-License-Identifier: Apache-2.0
"""What CUDA's errors in TensorRT's log mean for this machine.

Sources: CUDA runtime API, ``cudaError`` (the numbers); the texts are ``cudaGetErrorString``'s.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from typing import Any

from trtpack_runtime.device_faults import lost
from trtpack_runtime.errors import DeviceError

from ._log import Log, log_of

_NUMBER = re.compile(r"(?:with error: |cudaError(?:_t)? |CUDA error )(\d+)")
OUT_OF_MEMORY = 2
_TEXTS = {
    "CUDA driver version is insufficient": 35,
    "no CUDA-capable device": 100,
    "out of memory": OUT_OF_MEMORY,
    "OutOfMemory": OUT_OF_MEMORY,
    "unknown error": 999,
}
_PROBLEMS = {
    OUT_OF_MEMORY: (
        "the GPU is out of memory",
        "end other programs that use the GPU, or build for a smaller largest shape",
    ),
    35: (
        "the NVIDIA driver is missing, or too old for this TensorRT",
        "install a newer NVIDIA driver, or a TensorRT made for its CUDA",
    ),
    46: ("another program holds the GPU for itself", "end the program that uses the GPU"),
    100: ("there is no NVIDIA GPU", "run on a machine with a GPU, and give the container access"),
    101: ("there is no GPU of that number", "unset CUDA_VISIBLE_DEVICES, or name a GPU there is"),
    802: ("the GPUs are not ready yet", "start the fabric manager, then try again"),
    803: (
        "the NVIDIA driver's libraries and its kernel module differ",
        "restart the machine after the driver's update",
    ),
    804: ("this CUDA does not run with this GPU's driver", "update the NVIDIA driver"),
    999: ("the NVIDIA driver failed", "restart the machine, or load the driver again"),
}


def problem(number: int) -> tuple[str, str] | None:
    """What a CUDA error says of the machine and what to do about it; None where it says neither."""
    return _PROBLEMS.get(number)


def error_number(text: str) -> int | None:
    """The CUDA error that a line of a log names."""
    match = _NUMBER.search(text)
    if match:
        return int(match[1])
    return next((number for words, number in _TEXTS.items() if words in text), None)


def device_error(texts: Iterable[str]) -> DeviceError | None:
    """The machine's problem that lines of TensorRT's log tell; None where they tell another."""
    for text in reversed(list(texts)):
        if (fault := lost(text)) is not None:
            return fault
        problem = _PROBLEMS.get(error_number(text) or 0)
        if problem is not None:
            return DeviceError(f"{problem[0]}: TensorRT says {text}", hint=problem[1])
    return None


def start_builder(trt: Any) -> None:
    """Makes the builder that ``started`` answers next, which takes release 8 some seconds.

    Raises:
        DeviceError: as ``started``.
    """
    _STARTED.append((trt, _made(trt, "Builder", log_of(trt))))


_STARTED: list[tuple[Any, Any]] = []


def started(trt: Any, what: str) -> tuple[Log, Any]:
    """``trt.Builder`` or ``trt.Runtime``, which start CUDA, with the log they write to.

    Raises:
        DeviceError: there is no GPU, or its driver does not serve this TensorRT.
    """
    log = log_of(trt)
    if what == "Builder" and _STARTED and _STARTED[-1][0] is trt:
        return log, _STARTED.pop()[1]
    if what == "Runtime" and hasattr(trt, "Builder") and not _driver_answers():
        _made(trt, "Builder", log)  # fails in words; the Runtime of release 8 ends the process
    return log, _made(trt, what, log)


def _made(trt: Any, what: str, log: Log) -> Any:
    before = len(log.errors)
    try:
        made = getattr(trt, what)(log.logger)
    except (TypeError, RuntimeError):  # pybind's words for a null pointer
        made = None
    if made is not None:
        return made
    said = log.errors[before:] or log.tail()  # release 8 says it in a warning
    raise device_error(said) or DeviceError(
        f"TensorRT {trt.__version__} does not start: {'; '.join(said[-3:]) or 'it gave no reason'}",
        hint="run trtpack doctor to see what this machine has",
    )


def _driver_answers() -> bool:
    """Whether there is a driver with a GPU."""
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0)) == 0
    except (OSError, AttributeError):
        return False


def is_capturing() -> bool:
    """Whether the current stream is being captured into a CUDA graph."""
    import torch

    return torch.cuda.is_current_stream_capturing()
