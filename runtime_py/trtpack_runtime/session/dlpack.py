# SPDX-License-Identifier: Apache-2.0
"""Tensors of other libraries, given and taken through DLPack, by ctypes alone.

A producer hands out a capsule; whoever takes what is in it owns it, renames the capsule and calls
the deleter once. A capsule that nobody takes calls its deleter itself.

Source: dlpack.h 1.0 (``DLManagedTensor``, ``DLDataTypeCode``, ``DLDeviceType``); the array API
standard, ``__dlpack__`` (streams: 1 is the legacy default one, -1 asks for no waiting).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
_FRESH, _USED = b"dltensor", b"used_dltensor"
_CODES = {
    (0, 8): "INT8",
    (0, 16): "INT16",
    (0, 32): "INT32",
    (0, 64): "INT64",
    (1, 8): "UINT8",
    (2, 16): "HALF",
    (2, 32): "FLOAT",
    (2, 64): "DOUBLE",
    (4, 16): "BF16",
    (5, 64): "COMPLEX64",
    (6, 8): "BOOL",
    (10, 8): "FP8",
}
"""DLPack's type code and bits -> our name of the type."""
_OF_NAME = {name: code for code, name in _CODES.items()}
_RAW = {(1, 16): "UINT16", (1, 32): "UINT32", (1, 64): "UINT64"}
"""Types that no bundle has, for errors, and UINT16, which carries the bits of a BF16."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


def _python(name: str, answers: Any, *takes: Any) -> Any:
    return ctypes.PYFUNCTYPE(answers, *takes)((name, ctypes.pythonapi))


_pointer = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_rename = _python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_is = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_new = _python("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
# of a capsule that is going, which must not be held as an object again
_is_going = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_pointer_going = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Taken:
    """A tensor of another library, held until ``release``.

    ``strides`` are in elements, None where it is contiguous; ``device`` is DLPack's kind and index.
    """

    def __init__(self, managed: int) -> None:
        self._managed = managed
        held = _Managed.from_address(managed)
        tensor, count = held.tensor, held.tensor.ndim
        self.shape: tuple[int, ...] = tuple(tensor.shape[:count])
        self.strides = _strides(tensor, self.shape)
        self.address = (tensor.data or 0) + tensor.byte_offset
        self.device = tensor.device.type, tensor.device.id
        kind = tensor.type.code, tensor.type.bits
        self.dtype = _CODES.get(kind) or _RAW.get(kind) or f"code {kind[0]} of {kind[1]} bits"
        if tensor.type.lanes != 1:
            self.dtype += f" by {tensor.type.lanes}"

    def release(self) -> None:
        """Gives it back to its library; again does nothing."""
        managed, self._managed = self._managed, 0
        if managed:
            deleter = _Managed.from_address(managed).deleter
            if deleter:
                _Deleter(deleter)(managed)

    def __del__(self) -> None:
        self.release()


def take(value: Any, stream: int | None = None) -> Taken:
    """The tensor behind an object with ``__dlpack__``.

    Args:
        value: a tensor of another library.
        stream: of a tensor on a GPU the stream that is to wait until the tensor is ready; -1 for
            none.

    Raises:
        BufferError: it cannot be given, in its library's words.
    """
    try:
        capsule = value.__dlpack__() if stream is None else value.__dlpack__(stream=stream)
    except (BufferError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BufferError(str(error).splitlines()[0] if str(error) else repr(error)) from error
    if not _is(capsule, _FRESH):
        raise BufferError("its capsule holds no tensor of DLPack")
    managed = _pointer(capsule, _FRESH)
    _rename(capsule, _USED)
    return Taken(managed)


def give(
    address: int,
    shape: tuple[int, ...],
    dtype: str,
    device: tuple[int, int],
    done: Callable[[], None],
) -> Any:
    """A capsule over memory that stays until ``done`` is called, once."""
    count = len(shape)
    sizes, strides = (ctypes.c_int64 * count)(*shape), (ctypes.c_int64 * count)()
    step = 1
    for axis in range(count - 1, -1, -1):
        strides[axis], step = step, step * shape[axis]
    pointer = ctypes.POINTER(ctypes.c_int64)
    code, bits = _OF_NAME[dtype]
    managed = _Managed(
        _Tensor(
            address,
            _Device(*device),
            count,
            _Type(code, bits, 1),
            ctypes.cast(sizes, pointer),
            ctypes.cast(strides, pointer),
            0,
        ),
        None,
        ctypes.cast(_deleter, ctypes.c_void_p),
    )
    where = ctypes.addressof(managed)
    _given[where] = (managed, sizes, strides, done)
    return _new(where, _FRESH, ctypes.cast(_destructor, ctypes.c_void_p))


def _end(where: int) -> None:
    held = _given.pop(where, None)
    if held is not None:
        held[-1]()


def _dropped(capsule: int) -> None:
    """Ends what nobody took."""
    if _is_going(capsule, _FRESH):
        _end(_pointer_going(capsule, _FRESH))


def _strides(tensor: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if not tensor.strides:
        return None
    strides, step = tuple(tensor.strides[: len(shape)]), 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step and 0 not in shape:
            return strides
        step *= size
    return None


_given: dict[int, tuple[Any, ...]] = {}
_deleter = _Deleter(_end)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_dropped)
for _lasting in (_deleter, _destructor, _FRESH, _USED, _given, _end, _dropped):
    # others may call them until the interpreter is gone
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_lasting))
