# SPDX-License-Identifier: Apache-2.0
"""Arrays: numpy's types by our names, and tensors in the memory of the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES, by_safetensors
from ..errors import DeviceError
from ..safetensors import TensorView
from . import dlpack
from .memory import Block, array_at

if TYPE_CHECKING:
    import numpy

Shape = tuple[int, ...]
_RAW = {"BF16": "uint16", "FP8": "uint8"}
"""Types that numpy lacks: what carries their bits where ml_dtypes is not installed."""


@cache
def numpy_dtype(name: str) -> numpy.dtype[Any]:
    """numpy's type for a name such as ``"HALF"``; for BF16 and FP8 that of ml_dtypes where it is
    installed, else uint16 and uint8 with their bits."""
    import numpy

    if name not in _RAW:
        return numpy.dtype(DTYPES[name].torch)
    try:
        import ml_dtypes  # type: ignore[import-not-found, unused-ignore]  # need not be there
    except ImportError:
        return numpy.dtype(_RAW[name])
    found: numpy.dtype[Any] = numpy.dtype(getattr(ml_dtypes, DTYPES[name].torch))
    return found


@cache
def accepted(name: str) -> tuple[numpy.dtype[Any], ...]:
    """The types of arrays that are taken for a name as they are."""
    import numpy

    own = numpy_dtype(name)
    return (own, numpy.dtype(_RAW[name])) if name in _RAW else (own,)


def stored_array(view: TensorView) -> numpy.ndarray[Any, Any]:
    """A stored tensor as an array over the same memory."""
    import numpy

    dtype = numpy_dtype(by_safetensors(view.dtype).name)
    return numpy.frombuffer(view.buffer, dtype=dtype).reshape(view.shape)


def host_array(taken: dlpack.Taken) -> numpy.ndarray[Any, Any]:
    """A tensor of another library in the host's memory, for as long as that is held."""
    import numpy

    name = "UINT16" if taken.dtype == "UINT16" else taken.dtype
    dtype = numpy.dtype("uint16") if name == "UINT16" else numpy_dtype(name)
    strides = None
    if taken.strides is not None:
        strides = tuple(stride * dtype.itemsize for stride in taken.strides)
    return array_at(taken.address, dtype, taken.shape, strides)


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A tensor in the memory of the GPU, as a session answers it with ``copy=False``.

    It stays as it is until the session's next call of equal shapes. Other libraries take it
    without a copy through ``__dlpack__``; the memory then lasts as long as they hold it.
    """

    shape: Shape
    dtype: str
    """TensorRT's name of the type."""
    address: int
    device: int
    _block: Block
    _order: Callable[[int | None], None]
    """Has a stream wait until it is ready."""
    _fetch: Callable[[DeviceArray], Any]

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        count = 1
        for size in self.shape:
            count *= size
        return DTYPES[self.dtype].nbytes(count)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A copy in the host's memory; DeviceError once the session is closed."""
        self._check()
        array: numpy.ndarray[Any, Any] = self._fetch(self)
        return array

    def __dlpack__(self, stream: int | None = None, **options: Any) -> Any:
        """A capsule for another library, whose ``stream`` waits until the tensor is ready."""
        self._check()
        if stream != -1:
            self._order(stream)
        self._block.hold()
        where = self.__dlpack_device__()
        try:
            return dlpack.give(self.address, self.shape, self.dtype, where, self._block.drop)
        except BaseException:
            self._block.drop()
            raise

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's kind of device, which is CUDA's, and the GPU's number."""
        return dlpack.CUDA, self.device

    def _check(self) -> None:
        if not self._block.alive:
            raise DeviceError(
                "this array's memory is gone", hint="take what you need before the session closes"
            )
