# SPDX-License-Identifier: Apache-2.0
"""Runs a TensorRT engine on torch tensors; shared by ``tensorrt`` and ``tensorrt-rtx``.

The engine works on the caller's current CUDA stream; where that is the default stream, on one
beside it that waits for it and is waited for, since TensorRT synchronises the device on the default
stream. Whatever a call used, the caller's stream has waited for when it returns, so PyTorch's
allocator needs not be told of another stream.

A call does no more than it must: shapes are told to TensorRT when they change, addresses too, and
the host never waits for the engine. 64-bit integers that an engine of TensorRT 8 takes as 32-bit
ones are checked while the engine starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trtpack_runtime.errors import DeviceError

from ._contexts import Context, cannot_run
from ._lanes import Lane, Lanes
from ._log import Log
from ._profiles import Profiles, Shape, check_names
from ._refit import refit

if TYPE_CHECKING:
    import torch

CONTEXTS = 4
"""How many threads run an engine at the same time, unless ``contexts`` says another number."""


class EngineRunner:
    """A deserialised engine, to be called from any thread.

    ``engine`` is TensorRT's engine; ``inputs`` and ``outputs`` are its tensors in the caller's
    order. Each thread has execution contexts of its own, up to ``limit`` threads; further ones wait
    until a call of another is enqueued. ``capturable`` says whether a call may be captured into a
    CUDA graph; ``refits`` counts how often the weights were exchanged.
    """

    on_stream_safe = True
    """Calls from several threads, each on a stream of its own, may run at the same time."""

    def __init__(
        self,
        runtime: Any,
        engine: Any,
        log: Log,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: torch.device,
        declared: Mapping[str, str] | None = None,
        by_data: Collection[str] = (),
        trt: Any = None,
        fixed: Mapping[str, Shape] | None = None,
        *,
        limit: int = CONTEXTS,
        capturable: bool = True,
    ) -> None:
        """Makes room for an engine that ``_load.py`` deserialised.

        ``declared`` are the types the caller uses; INT64 stands for INT32 where the engine has
        that. ``by_data`` are the outputs whose size only the data tells; ``trt`` is the TensorRT
        module. ``fixed`` are the shapes of inputs that have one only.

        Raises:
            BundleError: the engine's tensors are others.
            DeviceError: the GPU has no memory for it.
        """
        from ._borders import Borders
        from ._choice import Choice
        from ._streams import Streams

        # a context, an engine and its runtime must go in this order
        self._runtime, self.engine, self._log, self._trt = runtime, engine, log, trt
        self.inputs, self.outputs, self.device = tuple(inputs), tuple(outputs), device
        check_names(engine, inputs, outputs)
        self.streams = streams = Streams(device)
        self._here, self._current, self._index = streams.here, streams.current, streams.index
        self._capturing, self._empty = streams.capturing, streams.empty
        self._aside: int | None = None
        named = (self.inputs, self.outputs, declared or {}, by_data, device, self._index)
        self.borders = Borders(engine, *named)
        self._held, self._plain = self.borders.held, self.borders.plain
        self.capturable = capturable and not (self.borders.by_data or self.borders.narrowed)
        self.refits = 0
        profiles = Profiles(engine, inputs, fixed)
        self._choice = Choice(trt, engine, log, self.borders, profiles, streams)
        self._lanes = Lanes(self._choice.lane(), self._choice.lane, limit)
        self._mine = self._lanes.mine

    # --- calling ---------------------------------------------------------------------------------
    def __call__(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """Enqueues the engine and answers its outputs, which are ready on the current stream.

        They are new tensors unless the caller gives ``outputs``, see ``run_into``.

        Raises:
            InputMismatchError: an input of another type or device, or outside the shapes the
                engine was built for, or with integers beyond 32 bits where it has no others.
            DeviceError: TensorRT cannot run it.
        """
        lanes = self._lanes
        try:
            lane = self._mine.lane
            if not lane.take(False):
                lane = lanes.taken()
        except AttributeError:  # the thread's first call
            lane = lanes.taken()
        try:
            if self._here() == self._index:
                return self.run(lane, inputs, outputs)
            with self.streams.on():
                return self.run(lane, inputs, outputs)
        finally:
            lane.give()
            if lanes.waiting:
                lanes.wake()

    def run_into(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        """As a call, with the results in the caller's ``outputs``.

        These are contiguous, of the engine's shapes and the caller's types, on its device, and
        share no memory with an input or each other.

        Raises:
            InputMismatchError: as a call; or an output is not so, or its size depends on the data.
            DeviceError: TensorRT cannot run it.
        """
        self(inputs, outputs)

    def output_shapes(self, shapes: Sequence[Shape]) -> list[Shape | None]:
        """The outputs' shapes for inputs of these; None where only the data tells.

        Raises:
            InputMismatchError: the engine does not take them.
        """
        key = tuple(map(tuple, shapes))
        plan = self._choice.plan(key)
        if plan is None:
            lane = self._lanes.taken()
            try:
                with self.streams.on():
                    plan = self._choice.told(lane, key).plan
            finally:
                lane.give()
                self._lanes.wake()
        names = self.borders.known
        known = {name: out[0] for name, out in zip(names, plan.outputs, strict=True)}
        return [known.get(name) for name in self.outputs]

    def run(
        self,
        lane: Lane,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """A call on a lane that is taken, the device being the current one."""
        if not self._plain:
            return self._converted(lane, inputs, outputs)
        context = lane.context
        if outputs is None:
            if context is None or not context.takes(inputs, self._held, self._index):
                inputs = self.borders.ready(inputs)
                context = self.prepared(lane, inputs)
            empty = self._empty
            results = [empty(*output) for output in context.plan.outputs]
        else:
            context, inputs = self._checked(lane, inputs, outputs)
            results = list(outputs)
        context.bind([*inputs, *results])
        self._enqueue(lane, context)
        return results

    def _checked(
        self, lane: Lane, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> tuple[Context, Sequence[torch.Tensor]]:
        """The context for tensors of the caller's, and the inputs contiguous."""
        context = lane.context
        if context is not None and context.shapes is not None:
            both = context.plan.both
            if len(inputs) == len(context.shapes) and len(outputs) == len(self.outputs):
                if both.check(*inputs, *outputs):
                    return context, inputs
                if context.takes(inputs, self._held, self._index):
                    self.borders.check_outputs(context.plan, outputs)
                    both.learn([*inputs, *outputs])
                    return context, inputs
        inputs = self.borders.ready(inputs)
        context = self.prepared(lane, inputs)
        self.borders.check_outputs(context.plan, outputs)
        return context, inputs

    def _converted(
        self,
        lane: Lane,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """As ``run``, where types differ from the engine's or sizes depend on the data."""
        borders, check = self.borders, None
        given = borders.ready(inputs)
        held = borders.narrow(given)
        if borders.narrowed and not self._capturing():  # which could not be waited for
            check = borders.range_check(given, dict(enumerate(held)))
        context = self.prepared(lane, held)
        if outputs is not None:
            borders.check_outputs(context.plan, outputs)
        made = [self._empty(*output) for output in context.plan.outputs]
        context.bind([*held, *made])
        self._enqueue(lane, context)
        results = dict(zip(borders.known, made, strict=True))
        for name in borders.by_data:
            results[name] = self._allocated(context, name)
        if check is not None:
            check.wait()
        return borders.widen([results[name] for name in self.outputs], outputs)

    def _allocated(self, context: Context, name: str) -> torch.Tensor:
        """An output whose memory TensorRT asked for during the last run."""
        output: torch.Tensor | None = context.allocator.taken(name, self.borders.dtypes[name])
        if output is None:
            raise DeviceError(
                f"output {name}: TensorRT did not tell its size", hint="build the bundle again"
            )
        return output

    def _enqueue(self, lane: Lane, context: Context) -> None:
        handle = self._current(self._index)
        captured = handle and self._capturing()
        if captured:
            context.keepers.add(getattr(self._mine, "keeper", self))
            lane.context = None
        elif handle != lane.last:
            self.follow(lane, handle)
        before = len(self._log.errors)
        if handle:
            enqueued = context.enqueue(handle)
        else:
            enqueued = self._enqueue_aside(lane, context)
        if not enqueued:
            context.forget()
            raise cannot_run(self._log, before)
        if lane.several and not captured:
            lane.event.record(self.streams.of(handle))

    def _enqueue_aside(self, lane: Lane, context: Context) -> bool:
        """For callers on the default stream."""
        if self._aside is None:
            self._aside = self.streams.aside()
        enqueued: bool = context.enqueue(self._aside)
        if self._aside:
            lane.done = lane.done or self.streams.event()
            lane.done.record(self.streams.of(self._aside))
            lane.done.wait(self.streams.of(0))
        return enqueued

    def prepared(self, lane: Lane, held: Sequence[torch.Tensor]) -> Context:
        """The lane's context for contiguous tensors of the engine's types, told their shapes."""
        context = self._choice.told(lane, tuple(tuple(tensor.shape) for tensor in held))
        lane.context = context
        return context

    def follow(self, lane: Lane, handle: int) -> None:
        """Has a stream wait for what the lane did on another one: its contexts share memory."""
        if lane.last is not None:
            if not lane.several:
                lane.several, lane.event = True, self.streams.event()
                lane.event.record(self.streams.of(lane.last))
            lane.event.wait(self.streams.of(handle))
            if handle not in lane.seen:
                self._seen_on(lane, handle)
        lane.last = handle
        lane.seen.add(handle)

    def _seen_on(self, lane: Lane, handle: int) -> None:
        """Has the allocator keep the lane's own memory for another stream, too."""
        for tensor in self.memory(lane):
            tensor.record_stream(self.streams.of(handle))

    def memory(self, lane: Lane) -> list[torch.Tensor]:
        """The tensors that a lane works in."""
        return [] if lane.scratch is None else [lane.scratch]

    # --- contexts --------------------------------------------------------------------------------
    @property
    def context(self) -> Any:
        """The execution context of TensorRT that was made first, of the first profile."""
        return self._lanes.all[0].contexts[0].trt

    @property
    def contexts(self) -> list[Any]:
        """TensorRT's execution contexts that were needed so far."""
        return [context.trt for lane in self._lanes.all for context in lane.contexts]

    def lane(self) -> Lane:
        """A new lane with an execution context of the first profile; for ``on``.

        Raises:
            DeviceError: the GPU has no memory for it.
        """
        return self._choice.lane()

    @contextmanager
    def on(self, lane: Lane, keeper: Any = None) -> Iterator[None]:
        """This thread's calls run on a lane that ``lane()`` made until the block ends.

        What is captured within stays valid as long as ``keeper``, any object that can be weakly
        referred to, lives: till then the contexts that were captured from run nothing else. The
        caller sees to it that one thread at a time uses the lane, replays included, and that those
        wait for each other's streams.
        """
        before = getattr(self._mine, "keeper", self)
        self._mine.keeper = self if keeper is None else keeper
        try:
            with self._lanes.on(lane):
                yield
        finally:
            self._mine.keeper = before

    def refit(self, weights: Mapping[str, Any]) -> None:
        """Exchanges the engine's weights between calls; graphs are captured anew afterwards.

        Raises:
            BundleError: a weight is missing, or of another type or size.
            DeviceError: the GPU has no memory for it.
        """
        import torch

        from ._streams import CAPTURES

        with self._lanes.everyone() as lanes, self.streams.on():
            with CAPTURES:
                torch.cuda.synchronize(self.device)
            self.refits += 1
            for lane in lanes:
                if lane.graphs is not None:
                    lane.graphs.let_go(lane, self.streams)
                for context in lane.contexts:
                    context.forget()
            refit(self._trt, self.engine, self._log, weights)
