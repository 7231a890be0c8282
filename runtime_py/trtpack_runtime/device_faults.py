# SPDX-License-Identifier: Apache-2.0
"""What PyTorch's exceptions say of the device: too little memory, or a fault that lasts.

After some faults CUDA refuses every further call of the process: nothing on that GPU works again
until it ends. Sources: CUDA runtime API, ``cudaError`` ("the process must be terminated and
relaunched"); the texts are ``cudaGetErrorString``'s.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from .errors import DeviceError, DeviceLostError

LASTING: dict[int, str] = {
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
}
"""CUDA errors after which the process has no GPU any more."""

_WANTED = re.compile(r"(?:Tried to allocate|tried to allocate) ([\d.]+ [KMGT]iB|\d+ bytes)")
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def lost(words: str) -> DeviceLostError | None:
    """The lasting fault that a text of CUDA, PyTorch or TensorRT tells of; None without one."""
    for number, text in LASTING.items():
        if text in words or re.search(rf"(?:CUDA|Cuda|cuda)\D{{0,40}}\b{number}\b", words):
            return DeviceLostError(
                f"a kernel failed on the GPU: {text} (CUDA error {number}); this process cannot "
                "use the GPU any more",
                hint="start the process again, and run it with CUDA_LAUNCH_BLOCKING=1 to find "
                "the kernel",
            )
    return None


def device_fault(error: BaseException) -> DeviceError | None:
    """What an exception of PyTorch says of the device; None where it is about something else."""
    if isinstance(error, MemoryError):
        return _no_memory("the machine", "")
    if not isinstance(error, RuntimeError):
        return None
    words = str(error)
    fault = lost(words)
    if fault is not None:
        return fault
    if type(error).__name__ == "OutOfMemoryError" or any(text in words for text in _NO_MEMORY):
        on_cpu = "CPU" in words or "alloc_cpu" in words
        return _no_memory("the machine" if on_cpu else "the GPU", words)
    return None


def raise_fault(error: Exception) -> NoReturn:
    """Raises DeviceError in place of an exception of PyTorch that is one of the device, else the
    exception itself. What the failed call held is given back, however long the error is kept."""
    fault = device_fault(error)
    if fault is None:
        raise error
    traceback.clear_frames(error.__traceback__)
    raise fault from error


@contextmanager
def naming_faults() -> Iterator[None]:
    """Raises DeviceError in place of an exception of PyTorch that is one of the device."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise_fault(error)


def _no_memory(where: str, words: str) -> DeviceError:
    wanted = _WANTED.search(words)
    told = f": {wanted[1]} more were wanted" if wanted else ""
    return DeviceError(
        f"{where} is out of memory{told}",
        hint="end other programs that use it, or call with smaller inputs",
    )
