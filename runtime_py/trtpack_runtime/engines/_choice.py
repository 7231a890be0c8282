# SPDX-License-Identifier: Apache-2.0
"""Which execution context of a lane runs a call, and making one where there is none yet."""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.errors import DeviceError

from ._alike import Alike
from ._allocator import output_allocator
from ._borders import Borders
from ._contexts import EMPTY_BYTES, Context, made, no_room, scratch_bytes
from ._lanes import Lane
from ._log import Log
from ._plans import Plan, Recent, strides
from ._profiles import Profile, Profiles, Shape
from ._streams import Streams


class Choice:
    """Contexts of one engine.

    A context that a graph was captured from runs nothing else while that graph lives. The first
    context of a lane has memory of its own, all others of the lane share some: they run one at a
    time.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        log: Log,
        borders: Borders,
        profiles: Profiles,
        streams: Streams,
    ) -> None:
        """``trt`` is the TensorRT module, which outputs sized by data and shared memory need."""
        self._trt, self._engine, self._log = trt, engine, log
        self._borders, self._profiles, self._streams = borders, profiles, streams
        self._plans = Recent[Plan]()
        self._nothing: torch.Tensor | None = None

    def plan(self, shapes: tuple[Shape, ...]) -> Plan | None:
        """What follows from shapes that were seen lately."""
        return self._plans.get(shapes)

    def told(self, lane: Lane, shapes: tuple[Shape, ...]) -> Context:
        """A context of the lane that knows these shapes, for a call that may run on it.

        Raises:
            InputMismatchError: the engine does not take them.
            DeviceError: the GPU has no memory for another context.
        """
        plan = self._plans.get(shapes)
        profile = self._profiles.fitting(shapes) if plan is None else plan.profile
        context = self._context(lane, profile, shapes)
        if context.shapes != shapes:
            context.tell_shapes(shapes)
        if plan is None:
            names = self._borders.known
            sizes = [(context.output_shape(name), self._borders.dtypes[name]) for name in names]
            outputs = tuple((size, strides(size), dtype) for size, dtype in sizes)
            plan = Plan(profile, outputs, Alike(), Alike())
            self._plans.put(shapes, plan)
        context.plan = plan
        return context

    def lane(self) -> Lane:
        """A new lane with a context of the first profile.

        Raises:
            DeviceError: the GPU has no memory for it.
        """
        lane = Lane()
        with self._streams.on():
            self._new(lane, self._profiles.first)
        return lane

    def _context(self, lane: Lane, profile: Profile, shapes: tuple[Shape, ...]) -> Context:
        of_profile = [context for context in lane.contexts if context.profile is profile]
        free = [context for context in of_profile if not context.keepers]
        same = [context for context in (*free, *of_profile) if context.shapes == shapes]
        if same and (not same[0].keepers or self._streams.capturing()):
            return same[0]
        if free:
            return free[0]
        try:
            return self._new(lane, profile)
        except DeviceError:  # no memory, or of release 8, where a profile may have one context only
            if lane.graphs is None or not lane.graphs.let_go(lane, self._streams):
                raise
            return self._context(lane, profile, shapes)

    def _new(self, lane: Lane, profile: Profile) -> Context:
        before, scratch = len(self._log.errors), None
        if lane.contexts:
            if lane.scratch is None:
                lane.scratch = self._memory(max(scratch_bytes(self._engine), EMPTY_BYTES))
                lane.seen.clear()
            scratch = (lane.scratch.data_ptr(), lane.scratch.numel())
        context = made(self._engine, self._log, scratch, self._trt)
        if getattr(context, "active_optimization_profile", profile.index) != profile.index:
            stream = self._streams.now()
            if not context.set_optimization_profile_async(profile.index, stream.cuda_stream):
                raise no_room(self._log, before)
            stream.synchronize()
        known = self._borders.known
        mine = Context(context, profile, self._profiles, known, self._log, self._nowhere)
        if self._borders.by_data:
            self._set_allocator(mine)
        lane.contexts.append(mine)
        return mine

    def _set_allocator(self, context: Context) -> None:
        context.allocator = output_allocator(self._trt, self._streams.device)
        for name in self._borders.by_data:
            if not context.trt.set_output_allocator(name, context.allocator):
                raise DeviceError(
                    f"output {name}: TensorRT takes no allocator", hint="build the bundle again"
                )

    def _memory(self, size: int) -> torch.Tensor:
        try:
            return self._streams.empty((size,), (1,), torch.uint8)
        except RuntimeError as error:
            raise DeviceError(
                f"the GPU has no {size} bytes left for another execution context",
                hint="free GPU memory, or load with fewer contexts",
            ) from error

    def _nowhere(self) -> int:
        """The address of memory that nobody uses."""
        if self._nothing is None:
            self._nothing = self._memory(EMPTY_BYTES)
        return self._nothing.data_ptr()
