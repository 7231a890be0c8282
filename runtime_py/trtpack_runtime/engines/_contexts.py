# SPDX-License-Identifier: Apache-2.0
"""An execution context of TensorRT, what it was told last, and how one is made.

Only the name-based calls that every release from 8.6 on has are used. Needs no PyTorch; memory is
an address that the caller keeps alive.

Sources: TensorRT's documentation, "CUDA Graphs" (a context that a graph was captured from is not to
be changed) and "Sharing memory between contexts"; ``NvInferRuntime.h``, ``setDeviceMemory``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from trtpack_runtime.errors import DeviceError, InputMismatchError
from trtpack_runtime.phases import phase

from ._cuda import device_error
from ._log import Log
from ._profiles import Profile, Profiles, Shape

_UNKNOWN = -1
EMPTY_BYTES = 256
"""How much memory stands for a tensor without elements, for which TensorRT takes no null."""


class Context:
    """An execution context of one profile, with the shapes and addresses it knows.

    ``shapes`` are those of the inputs, None until they are told; ``plan`` is what follows from
    them. ``keepers`` are the graphs captured from it: as long as there are any, it runs nothing
    else. ``allocator`` is what gives memory to outputs that are sized by data.
    """

    def __init__(
        self,
        context: Any,
        profile: Profile,
        profiles: Profiles,
        outputs: Sequence[str],
        log: Log,
        nowhere: Callable[[], int],
    ) -> None:
        """``outputs`` are those whose sizes are known before a run; ``nowhere`` answers the address
        of ``EMPTY_BYTES`` that nobody uses."""
        self.trt, self.profile, self.enqueue = context, profile, context.execute_async_v3
        self.shapes: tuple[Shape, ...] | None = None
        self.plan: Any = None
        self.allocator: Any = None
        self.keepers: WeakSet[Any] = WeakSet()
        self._profiles, self._log, self._nowhere = profiles, log, nowhere
        self._names = (*profiles.inputs, *outputs)
        self._first_output = len(profiles.inputs)
        self.forget()

    def forget(self) -> None:
        """Has it told its shapes and addresses anew."""
        self.shapes = None
        self._told: list[Shape | None] = [None] * self._first_output
        self._addresses = [_UNKNOWN] * len(self._names)

    def takes(self, inputs: Sequence[Any], dtypes: Sequence[Any], index: int) -> bool:
        """Whether tensors have the shapes it was told last, these types, are contiguous, and on the
        device of a number."""
        shapes = self.shapes
        if shapes is None or len(inputs) != len(shapes):
            return False
        if self.plan.inputs.check(*inputs):
            return True
        for tensor, dtype, shape in zip(inputs, dtypes, shapes):  # noqa: B905 - counted above
            if (
                tensor.shape != shape
                or tensor.dtype is not dtype
                or tensor.get_device() != index
                or not tensor.is_contiguous()
            ):
                return False
        self.plan.inputs.learn(inputs)
        return True

    def bind(self, tensors: Sequence[Any]) -> None:
        """Tells TensorRT where the inputs are, and after them the outputs of known size."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        known = self._addresses
        if addresses != known:
            for i, address in enumerate(addresses):
                if address != known[i]:
                    self.tell_address(i, address)

    def tell_address(self, i: int, address: int) -> None:
        """Tells TensorRT where a tensor is: an input, or after them an output of known size."""
        self.trt.set_tensor_address(self._names[i], address or self._nowhere())
        self._addresses[i] = address

    def tell_shapes(self, shapes: Sequence[Shape]) -> None:
        """Tells TensorRT the inputs' shapes, each that it does not know.

        Raises:
            InputMismatchError: TensorRT does not take one.
        """
        before, self.shapes = len(self._log.errors), None
        for i, shape in enumerate(shapes):
            if not self._profiles.dynamic[i] or self._told[i] == shape:
                continue
            self._told[i] = None
            name = self._profiles.inputs[i]
            if not self.trt.set_input_shape(name, shape):
                raise InputMismatchError(
                    f"input {name}: the engine does not take the shape {list(shape)}: "
                    f"{said(self._log, before)}",
                    hint="build again with a wider --input range",
                )
            self._told[i] = shape
        self.shapes = tuple(shapes)

    def output_shape(self, name: str) -> Shape:
        """An output's shape, once the inputs' are told.

        Raises:
            DeviceError: TensorRT does not know it.
        """
        before = len(self._log.errors)
        shape = tuple(self.trt.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise DeviceError(
                f"output {name}: TensorRT does not know its shape: {said(self._log, before)}",
                hint="build the bundle again",
            )
        return shape


def made(engine: Any, log: Log, scratch: tuple[int, int] | None = None, trt: Any = None) -> Any:
    """A new execution context of TensorRT.

    Args:
        engine: TensorRT's engine.
        log: what it writes to.
        scratch: address and bytes of memory to work in, shared with contexts that never run at the
            same time; memory of its own where not given, or where this release cannot.
        trt: the TensorRT module, which ``scratch`` needs.

    Raises:
        DeviceError: the GPU has no memory for it.
    """
    before = len(log.errors)
    with phase("context"):
        context = None if scratch is None else _without_memory(engine, trt)
        if context is not None and scratch is not None:
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(*scratch)
            else:
                context.device_memory = scratch[0]
            return context
        context = engine.create_execution_context()
    if context is None:
        raise no_room(log, before)
    return context


def scratch_bytes(engine: Any) -> int:
    """How much memory any context of an engine works in, whatever its profile."""
    for name in ("device_memory_size_v2", "device_memory_size"):
        size = getattr(engine, name, None)
        if size is not None:
            return int(size)
    return 0


def no_room(log: Log, before: int) -> DeviceError:
    """The refusal of a context, in TensorRT's words since the ``before``-th error."""
    return DeviceError(
        f"TensorRT cannot make room for the engine: {said(log, before)}",
        hint="free GPU memory, or build for a smaller largest shape",
    )


def cannot_run(log: Log, before: int) -> DeviceError:
    """The refusal of a run, in TensorRT's words since the ``before``-th error."""
    return device_error(log.errors[before:]) or DeviceError(
        f"TensorRT cannot run the engine: {said(log, before)}",
        hint="run trtpack doctor to see what this device has",
    )


def said(log: Log, before: int) -> str:
    """TensorRT's last words since the ``before``-th error."""
    return "; ".join(log.errors[before:][-3:]) or "it gave no reason"


def _without_memory(engine: Any, trt: Any) -> Any:
    """A context that is given its memory; None where this release has none."""
    if hasattr(engine, "create_execution_context_without_device_memory"):
        return engine.create_execution_context_without_device_memory()
    strategy = getattr(trt, "ExecutionContextAllocationStrategy", None)
    return strategy and engine.create_execution_context(strategy.USER_MANAGED)
