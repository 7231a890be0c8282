# SPDX-License-Identifier: Apache-2.0
"""Weights and tensors of a double; sizes are symbols, so that shape arithmetic is followed."""

from __future__ import annotations

import ctypes
from typing import Any

from trtpack_runtime.dims import Dim, dim
from trtpack_runtime.dtypes import DTYPES

_LARGEST_SHAPE_TENSOR = 64


class Weights:
    """Weights by address, or on 8.6 as the numpy array they are."""

    def _do_init(self, type: Any = None, ptr: int = 0, count: int = 0, a: Any = None) -> None:
        trt = self._trt
        if type is not None and not isinstance(type, trt.DataType):
            type, a = None, type  # one argument that is no type is an array
        if a is not None:
            self._array = a
            type, ptr, count = _type_of(trt, a), a.ctypes.data, a.size
        self._dtype, self._ptr, self._count = type or trt.DataType.FLOAT, ptr, count

    def _get_dtype(self) -> Any:
        return self._dtype

    def _get_size(self) -> int:
        return int(self._count)

    def _get_nbytes(self) -> int:
        return DTYPES[self._dtype.name].nbytes(self._count)

    def _do_len(self) -> int:
        return int(self._count)

    def _numbers(self) -> tuple[int, ...] | None:
        """The values, where they are few and whole."""
        code = {"INT32": ctypes.c_int32, "INT64": ctypes.c_int64}.get(self._dtype.name)
        if code is None or self._count > _LARGEST_SHAPE_TENSOR:
            return None
        return tuple((code * self._count).from_address(self._ptr)) if self._count else ()


def _type_of(trt: Any, array: Any) -> Any:
    """The type of a numpy array, which the release must have a name for."""
    if not hasattr(array, "ctypes"):
        raise TypeError(f"Weights(): {type(array).__name__} is no numpy array")
    if not array.flags["C_CONTIGUOUS"]:
        raise TypeError("Weights(): the array is not contiguous")
    try:
        return getattr(trt, str(array.dtype))
    except AttributeError as error:
        raise TypeError(f"Could not implicitly convert NumPy data type {array.dtype}") from error


class TensorOf:
    """``ITensor``: an input of the network, or an output of a layer."""

    _network: Any
    _layer: Any
    _index: int

    def _get_name(self) -> str:
        return self._values.get("name") or f"{self._layer.name}_output"

    def _set_name(self, value: str) -> None:
        self._values["name"] = str(value)

    def _get_dtype(self) -> Any:
        values: dict[str, Any] = self._values
        if "dtype" in values:
            return values["dtype"]
        return getattr(self._network._trt.DataType, self._layer._results()[self._index][0])

    def _set_dtype(self, value: Any) -> None:
        if not isinstance(value, self._network._trt.DataType):
            raise TypeError(f"ITensor.dtype: {value!r} is no DataType")
        if self._network._strong:
            self._network._complain("ITensor::setType: the network is strongly typed")
        else:
            self._values["dtype"] = value

    def _get_shape(self) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._dims())

    def _get_is_network_input(self) -> bool:
        return self._layer is None

    def _get_is_network_output(self) -> bool:
        return any(self is output for output in self._network._outputs)

    def _do_set_dimension_name(self, index: int, name: str) -> None:
        self._named[index] = name

    def _do_get_dimension_name(self, index: int) -> str:
        return str(self._named.get(index, ""))

    # what the double itself asks

    _named: dict[int, str]
    _declared: tuple[int, ...] = ()

    def _dims(self) -> tuple[Dim, ...]:
        """The shape, open sizes as symbols; equal names are equal sizes."""
        if self._layer is not None:
            return tuple(self._layer._results()[self._index][1])
        name = self._get_name()
        return tuple(
            dim(self._named.get(axis) or f"{name}.{axis}", 0) if size == -1 else size
            for axis, size in enumerate(self._declared)
        )

    def _sizes(self) -> tuple[Dim, ...] | None:
        """The values of a shape tensor; None where they are not sizes."""
        return None if self._layer is None else self._layer._sizes()
