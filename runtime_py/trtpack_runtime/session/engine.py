# SPDX-License-Identifier: Apache-2.0
"""A TensorRT engine on addresses: which profile, which shapes, and where its tensors lie.

A session does one thing after the other on one stream, so all its contexts share one scratch
memory. A profile has one context, told shapes as they change; a CUDA graph gets one of its own,
since TensorRT may exchange what a graph reads when a context is told other shapes.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engines import _contexts
from ..engines._log import Log
from ..engines._profiles import Profile, Profiles, check_names
from ..errors import DeviceError
from .arrays import Shape
from .cuda import Cuda
from .memory import Grown


@dataclass
class Scratch:
    """The one scratch memory of a session's contexts, made when the first of them is."""

    memory: Grown
    nbytes: int = 0

    def need(self, nbytes: int) -> None:
        """Has it be so large."""
        self.nbytes = max(self.nbytes, nbytes)

    @property
    def place(self) -> tuple[int, int]:
        """Its address and size."""
        return self.memory.of(max(1, self.nbytes)).address, self.nbytes


class Context:
    """An execution context of a session, and what it was told last."""

    def __init__(self, engine: SegmentEngine, context: _contexts.Context, allocator: Any) -> None:
        self._engine, self._context, self.allocator = engine, context, allocator
        self._outputs: tuple[Shape | None, ...] = ()
        self._bound: list[int] = []

    @property
    def profile(self) -> Profile:
        """The optimisation profile it is of."""
        return self._context.profile

    def told(self, shapes: tuple[Shape, ...]) -> tuple[Shape | None, ...]:
        """The outputs' shapes for these of the inputs; None where only the data tells them.

        Raises:
            InputMismatchError: TensorRT does not take them.
            DeviceError: it does not know an output's shape.
        """
        context, engine = self._context, self._engine
        if shapes != context.shapes:
            context.tell_shapes(shapes)
            self._outputs = tuple(
                None if name in engine.by_data else context.output_shape(name)
                for name in engine.outputs
            )
        return self._outputs

    def enqueue(self, addresses: list[int], stream: int) -> None:
        """Has the engine run on a stream.

        Args:
            addresses: of the inputs, then of the outputs whose size does not depend on data.
            stream: the stream's address.

        Raises:
            DeviceError: TensorRT cannot.
        """
        context = self._context
        if addresses is not self._bound and addresses != self._bound:
            for i, address in enumerate(addresses):
                if not self._bound or address != self._bound[i]:
                    context.tell_address(i, address)
            self._bound = addresses
        before = len(self._engine.log.errors)
        if not context.enqueue(stream):
            context.forget()
            self._bound = []
            raise _contexts.cannot_run(self._engine.log, before)


@dataclass
class SegmentEngine:
    """A deserialised engine. ``inputs`` and ``outputs`` are its tensors in the caller's order,
    ``types`` the engine's own types of them."""

    name: str
    runtime: Any
    engine: Any
    log: Log
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    by_data: Collection[str] = ()
    fixed: Mapping[str, Shape] = field(default_factory=dict)
    trt: Any = None
    own_scratch: bool = False
    """Its contexts have scratch memory of their own."""
    capturable: bool = True
    """Whether a CUDA graph can hold it: no size within it depends on data."""

    def __post_init__(self) -> None:
        """Reads what TensorRT tells of it; BundleError where it is of another segment."""
        self.names, self._lock = (*self.inputs, *self.outputs), threading.Lock()
        check_names(self.engine, self.inputs, self.outputs)
        self.types = {name: self.engine.get_tensor_dtype(name).name for name in self.names}
        self.profiles = Profiles(self.engine, self.inputs, self.fixed)

    @property
    def dynamic(self) -> bool:
        """Whether an input has an open size."""
        return any(self.profiles.dynamic)

    @property
    def scratch_bytes(self) -> int:
        """How much of the shared scratch memory its contexts need."""
        return 0 if self.own_scratch else _contexts.scratch_bytes(self.engine)

    def new_context(
        self, profile: Profile, scratch: Scratch, cuda: Cuda, stream: Any, allocator: Any = None
    ) -> Context:
        """An execution context of a profile; ``allocator`` gives memory to outputs sized by data.

        Raises:
            DeviceError: the GPU has no memory for it.
        """
        before, known = len(self.log.errors), [n for n in self.outputs if n not in self.by_data]
        place = None if self.own_scratch else scratch.place
        with self._lock:
            made = _contexts.made(self.engine, self.log, place, self.trt)
        if profile.index:
            if not made.set_optimization_profile_async(profile.index, int(stream)):
                raise _contexts.no_room(self.log, before)
            cuda.wait(stream)
        for name in self.by_data:
            if not made.set_output_allocator(name, allocator):
                raise DeviceError(
                    f"output {name}: TensorRT takes no allocator", hint="build the bundle again"
                )
        # a tensor without elements lies in memory of the session too
        context = _contexts.Context(made, profile, self.profiles, known, self.log, int)
        return Context(self, context, allocator)
