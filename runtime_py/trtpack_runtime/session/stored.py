# SPDX-License-Identifier: Apache-2.0
"""Stored tensors that a session needs on the GPU: constants, and the states' first values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from ..errors import BundleError
from ..input_shapes import check_state
from ..safetensors import TensorView
from .arrays import Shape, numpy_dtype, stored_array
from .cuda import Cuda
from .memory import Block
from .route import Route
from .state import State

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class Constant:
    """A stored tensor that segments read, on the GPU."""

    block: Block
    shape: Shape


def place_constants(
    bundle: Bundle,
    routes: Mapping[str, Route],
    placed: dict[str, Constant],
    cuda: Cuda,
    stream: Any,
) -> None:
    """Puts onto the GPU what segments read of the stored tensors and is not ``placed`` yet."""
    for route in routes.values():
        for value, name in route.constants:
            if name not in placed:
                array = _first_value(bundle, name, route.types[value], f"the tensor {name}")
                block = Block(cuda, max(1, array.nbytes))
                placed[name] = Constant(block, array.shape)
                if array.nbytes:
                    cuda.copy_in(block.address, array.ctypes.data, array.nbytes, stream)
                    cuda.wait(stream)


def first_states(bundle: Bundle, routes: Mapping[str, Route], cuda: Cuda) -> dict[str, State]:
    """The state slots of some methods."""
    stored = {slot.name: slot.initial for slot in bundle.manifest.state}
    states: dict[str, State] = {}
    for route in routes.values():
        for slot in route.states:
            held = route.types[slot.input]
            if slot.name not in states:
                first = _first_value(bundle, stored[slot.name], held, f"the state {slot.name}")
                states[slot.name] = State(cuda, held, first)
    return states


def state_value(name: str, given: Any, state: State) -> numpy.ndarray[Any, Any]:
    """What a caller gives for a slot, in the type that it has on the GPU.

    Raises:
        InputMismatchError: it is no array, or of another shape than the slot's first value.
        BundleError: as ``as_held``.
    """
    import numpy

    check_state(name, state.first_shape, given, numpy.ndarray, numpy.generic)
    return as_held(given, state.dtype, f"the state {name}")


def stored(bundle: Bundle, name: str) -> TensorView:
    """A stored tensor; BundleError where there is none of that name."""
    try:
        return bundle.weights[name]
    except KeyError:
        raise BundleError(
            f"the bundle has no tensor {name!r}, which its manifest names",
            hint="build the bundle again",
        ) from None


def _first_value(bundle: Bundle, name: str, held: str, slot: str) -> numpy.ndarray[Any, Any]:
    """A stored tensor in the type it has on the GPU.

    Raises:
        BundleError: there is none, or it has integers that an engine of TensorRT 8 cannot take.
    """
    return as_held(stored_array(stored(bundle, name)), held, slot)


def as_held(array: numpy.ndarray[Any, Any], held: str, slot: str) -> numpy.ndarray[Any, Any]:
    """An array in the type it has on the GPU.

    Raises:
        BundleError: it has integers that an engine of TensorRT 8 cannot take.
    """
    import numpy

    if array.dtype == numpy.int64 and held == "INT32":
        narrow = array.astype(numpy.int32)
        if not numpy.array_equal(narrow, array):
            raise BundleError(
                f"{slot} has integers beyond 32 bits, this engine's TensorRT has no INT64",
                hint="build for TensorRT 10 or later",
            )
        return narrow
    whole: numpy.ndarray[Any, Any]
    whole = numpy.ascontiguousarray(array, numpy_dtype(held)).reshape(array.shape)
    return whole
