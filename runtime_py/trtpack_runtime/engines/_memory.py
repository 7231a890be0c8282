# SPDX-License-Identifier: Apache-2.0
"""Addresses of buffers, so that weights reach TensorRT without a copy and without numpy."""

from __future__ import annotations

import ctypes
from typing import Any

_SIMPLE = 0


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
