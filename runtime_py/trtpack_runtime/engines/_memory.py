# SPDX-License-Identifier: Apache-2.0
"""Buffers as TensorRT's weights: by address, so without a copy and without numpy."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from trtpack_runtime.dtypes import DTYPES

_SIMPLE = 0
_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
}
"""What release 8 knows of numpy's types."""


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address(buffer: Any) -> int:
    """Where a contiguous buffer's bytes are, read-only ones too; 0 for an empty one.

    The address is good for as long as the caller keeps ``buffer`` and does not resize it.
    """
    view = _PyBuffer()
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
    release.argtypes = (ctypes.POINTER(_PyBuffer),)
    release.restype = None
    get(buffer, ctypes.byref(view), _SIMPLE)
    try:
        return int(view.buf or 0)
    finally:
        release(ctypes.byref(view))


def weights_at(trt: Any, dtype: str, stored: Any, count: int | None = None) -> tuple[Any, Any]:
    """TensorRT's ``Weights`` over stored bytes, and what must live as long as they are used.

    INT64 is narrowed where the release has no wider integer than INT32. Release 8 takes no
    address, only a numpy array.

    Args:
        trt: the TensorRT module.
        dtype: the type's name in TensorRT.
        stored: an object with the buffer protocol.
        count: how many elements there are; by default as many as fill the buffer.

    Raises:
        OverflowError: an integer does not fit into 32 bits where there is no INT64.
    """
    buffer = memoryview(stored).cast("B")
    if count is None:
        count = len(buffer) * 8 // DTYPES[dtype].bits
    if dtype == "INT64" and not hasattr(trt.DataType, "INT64"):
        dtype, buffer = "INT32", memoryview(_narrowed(buffer))
    value = getattr(trt.DataType, dtype)
    if not count:
        return trt.Weights(value), buffer
    if _takes_addresses(trt):
        return trt.Weights(value, address(buffer), count), buffer
    import numpy

    array = numpy.frombuffer(buffer, _NUMPY[dtype], count)
    return trt.Weights(array), array


def _takes_addresses(trt: Any) -> bool:
    """Whether ``Weights`` can be made of an address: from 10.0 on, as INT64 is there."""
    return hasattr(trt.DataType, "INT64")


def _narrowed(buffer: memoryview) -> bytes:
    values = struct.unpack(f"={len(buffer) // 8}q", buffer)
    try:
        return struct.pack(f"={len(values)}i", *values)
    except struct.error as error:
        raise OverflowError("has values beyond 32 bits, this TensorRT has no INT64") from error
