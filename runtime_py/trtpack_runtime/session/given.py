# SPDX-License-Identifier: Apache-2.0
"""What a caller gives: arrays of the host, and tensors that lie on the GPU already."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..dtypes import DTYPES
from ..errors import ConfigError, InputMismatchError
from ..input_shapes import wrong_count
from ..manifest import TensorSpec
from . import dlpack
from .arrays import DeviceArray, Shape, accepted, host_array, numpy_dtype

if TYPE_CHECKING:
    import numpy

Inputs = Literal["convert", "refuse"]


@dataclass(eq=False)
class Given:
    """One input: an array of the host, or an address on the GPU; ``owner`` keeps it alive."""

    shape: Shape
    array: numpy.ndarray[Any, Any] | None = None
    address: int = 0
    owner: Any = None


def in_order(names: Sequence[str], inputs: Any) -> list[Any]:
    """A call's inputs in the method's order, from a mapping by name or a sequence.

    Raises:
        InputMismatchError: some are missing, or there is none of a name.
    """
    if isinstance(inputs, (list, tuple)):
        if len(inputs) != len(names):
            raise wrong_count(names, len(inputs))
        return list(inputs)
    if not isinstance(inputs, Mapping):
        raise InputMismatchError(
            f"wanted inputs by name or in a list, got {type(inputs).__name__}",
            hint="give {name: array}, or a list of arrays",
        )
    unknown = [name for name in inputs if name not in names]
    if unknown:
        raise InputMismatchError(
            f"there is no input {unknown[0]!r}, the inputs are {', '.join(names)}",
            hint="use one of these names",
        )
    for name in names:
        if name not in inputs:
            raise InputMismatchError(
                f"input {name!r} is not given", hint=f"give a value for {name}"
            )
    return [inputs[name] for name in names]


class Reader:
    """Reads one input of a method.

    ``held`` is its type on the GPU; with ``wait`` its producer has the session's stream wait for
    it, which a caller whose own stream that is need not.
    """

    def __init__(
        self, spec: TensorSpec, held: str, device: int, inputs: Inputs, wait: bool
    ) -> None:
        if inputs not in ("convert", "refuse"):
            raise ConfigError(f"unknown inputs={inputs!r}", hint="give convert or refuse")
        self._spec, self._held, self._device = spec, held, device
        self._convert, self._wait = inputs == "convert", wait
        self._dtype = numpy_dtype(held)
        self._accepted = (*accepted(spec.dtype), self._dtype)
        self._seen: Callable[[], Any] = _nothing
        self._known = Given(())

    def read(self, value: Any, stream: int) -> Given:
        """The input, in a type that can be copied to where it is wanted on a stream.

        Raises:
            InputMismatchError: another type, another GPU, or nothing that is an array.
        """
        import numpy

        if isinstance(value, (numpy.ndarray, numpy.generic)):
            return self._on_host(value)
        if isinstance(value, DeviceArray):
            return self._on_gpu(value.dtype, value.shape, value.device, value.address, value)
        if not self._wait and type(value).__module__ == "torch" and value.is_cuda:
            return self._of_torch(value)
        if hasattr(value, "__dlpack__"):
            return self._taken(value, stream if self._wait else -1)
        return self._on_host(value)

    def is_again(self, value: Any) -> bool:
        """Whether a value is the tensor that was read last, in the same place: what makes calls
        that repeat themselves cheap."""
        known = self._known
        return (
            value is self._seen()
            and value.data_ptr() == known.address
            and value.shape == known.shape
            and value.is_contiguous()
        )

    def _of_torch(self, value: Any) -> Given:
        """As DLPack gives it. The capsule is not kept: in the order of the caller's stream this
        call comes before whoever gets the memory next."""
        self._known, self._seen = self._taken(value, -1), weakref.ref(value)
        self._known.owner = None
        return self._known

    def _taken(self, value: Any, stream: int) -> Given:
        where, _ = value.__dlpack_device__()
        on_gpu = where in (dlpack.CUDA, dlpack.CUDA_MANAGED)
        try:
            taken = dlpack.take(value, stream if on_gpu else None)
        except BufferError as error:
            raise InputMismatchError(
                f"input {self._spec.name}: it cannot be read: {error}",
                hint="give a numpy array, or a tensor that DLPack can carry",
            ) from error
        if where in (dlpack.CPU, dlpack.CUDA_HOST):
            if taken.dtype not in DTYPES and taken.dtype != "UINT16":
                raise self._wrong_type(taken.dtype)
            found = self._on_host(host_array(taken))
            found.owner = taken
            return found
        if not on_gpu:
            raise InputMismatchError(
                f"input {self._spec.name}: it is on a device of DLPack's kind {where}",
                hint="give an array of the host, or of the session's GPU",
            )
        if taken.strides is not None:
            raise InputMismatchError(
                f"input {self._spec.name}: it is not contiguous on the GPU",
                hint="make it contiguous before the call",
            )
        return self._on_gpu(taken.dtype, taken.shape, taken.device[1], taken.address, taken)

    def _on_gpu(self, dtype: str, shape: Shape, device: int, address: int, owner: Any) -> Given:
        if device != self._device:
            raise InputMismatchError(
                f"input {self._spec.name}: it is on GPU {device}, the session on {self._device}",
                hint="move it there, or give an array of the host",
            )
        if dtype != self._held and not (dtype == "UINT16" and self._held == "BF16"):
            if dtype == self._spec.dtype == "INT64":
                raise InputMismatchError(
                    f"input {self._spec.name}: it is INT64 on the GPU, this engine's TensorRT has "
                    "no INT64",
                    hint="give an array of the host, or INT32",
                )
            raise self._wrong_type(dtype)
        return Given(shape, None, address, owner)

    def _on_host(self, value: Any) -> Given:
        import numpy

        name = self._spec.name
        if not hasattr(value, "dtype"):
            if not self._convert:
                raise InputMismatchError(
                    f"input {name}: wanted an array, got {type(value).__name__}",
                    hint="convert it with numpy.asarray",
                )
            try:
                value = numpy.asarray(value)
            except (TypeError, ValueError) as error:
                raise InputMismatchError(
                    f"input {name}: cannot make an array of it: {error}",
                    hint="give an array of numbers",
                ) from error
        array: numpy.ndarray[Any, Any] = numpy.asanyarray(value)
        if array.dtype not in self._accepted:
            if not (self._convert and numpy.can_cast(array.dtype, self._dtype, "same_kind")):
                raise self._wrong_type(str(array.dtype))
        elif array.dtype != self._dtype and array.dtype.itemsize == self._dtype.itemsize:
            return Given(array.shape, array.view(self._dtype))  # raw bits
        if self._dtype.kind == "i" and not numpy.can_cast(array.dtype, self._dtype) and array.size:
            limits, low, high = numpy.iinfo(self._dtype), int(array.min()), int(array.max())
            if low < limits.min or high > limits.max:
                narrow = self._spec.dtype == "INT64"
                why = "this engine's TensorRT has no INT64" if narrow else "it takes no others"
                raise InputMismatchError(
                    f"input {name}: has integers beyond {limits.bits} bits, {why}",
                    hint=f"give values within {limits.bits} bits"
                    + (", or build for TensorRT 10 or later" if narrow else ""),
                )
        return Given(array.shape, array)

    def _wrong_type(self, has: str) -> InputMismatchError:
        name, wanted = self._spec.name, DTYPES[self._spec.dtype].torch
        given = DTYPES[has].torch if has in DTYPES else has.lower()
        return InputMismatchError(
            f"input {name}: wanted {wanted}, got {given}",
            hint=f"convert {name} to {wanted} before the call",
        )


def _nothing() -> None:
    """No tensor was read yet."""
