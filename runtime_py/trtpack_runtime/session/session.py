# SPDX-License-Identifier: Apache-2.0
"""A bundle on a GPU without torch: numpy and DLPack in and out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..bundle import Bundle
from ..errors import ConfigError, DeviceError
from ..finish import Finished
from ..manifest import TensorSpec
from ..memory_plan import MemoryPlan
from ..phases import LoadTimes
from ..progress import OnProgress
from ..resolve import Choice
from ..smoke_report import SmokeReport
from . import call
from .arrays import DeviceArray
from .clock import StreamClock
from .cuda import Cuda
from .given import Given, Inputs, Reader, in_order
from .proof import proved
from .route import Route
from .staging import SessionFuture
from .start import Opened, Options, opened
from .stored import Constant, first_states, place_constants, state_value
from .work import Work, check_shapes

Graphs = Literal["auto", "on", "off"]
NO_STATES: Mapping[str, Any] = {}


class Session:
    """A loaded bundle that runs on TensorRT alone; nothing of it imports torch.

    Calls run one after the other, in the order in which they are made, on one stream. They may come
    from several threads. ``close`` gives everything back, as does the end of a ``with`` block.

        >>> with trtpack_runtime.Session("bundle.tar") as session:
        ...     answer = session.run({"x": numpy.zeros((1, 3, 224, 224), numpy.float32)})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: int = 0,
        method: str | Sequence[str] = "forward",
        *,
        inputs: Inputs = "convert",
        cuda_graphs: Graphs | bool = "auto",
        trust: bool = False,
        target: str | None = None,
        build: bool = True,
        rebuild: bool = False,
        verify: Literal["lazy", "full"] = "lazy",
        check_memory: bool = True,
        stream: int | None = None,
        shapes: int = 8,
        in_flight: int = 2,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Opens a bundle and loads the variant that fits this machine best.

        Args:
            path: the bundle.
            device: the GPU's number.
            method: the method to run, or several, which share weights and state; the first one is
                what ``run`` takes where it is not told another.
            inputs: "convert" makes arrays of other numbers, and other types where numpy calls that
                a cast of the same kind; "refuse" takes only what is right as it is. A tensor on the
                GPU is never converted.
            cuda_graphs: "auto" replays calls as CUDA graphs from the third of equal shapes on, "on"
                warns where it cannot, "off" never does.
            trust: load machine code that another machine built.
            target: take this variant instead of the best one.
            build: build engines that the bundle leaves to this device.
            rebuild: build every engine that this device can build anew.
            verify: compare every digest of the bundle first ("full"), or those of the parts that
                are used ("lazy").
            check_memory: refuse what surely does not fit into the memory that is free.
            stream: a stream of the caller's to work on, by its address. Inputs on the GPU have to
                be ready in its order and to stay until it is done with them, and ``run`` with
                ``copy=False`` does not wait. Without it the session has a stream of its own.
            shapes: for how many combinations of the inputs' shapes memory and graphs are kept.
            in_flight: how many calls of ``run_async`` may be under way.
            on_progress: told how far a build is.

        Raises:
            BundleError: a damaged bundle, or no variant fits this machine.
            ConfigError: no such method, variant or option.
            DeviceError: a segment needs PyTorch, or the GPU, its driver or CUDA's binding cannot
                serve it.
            EngineBuildError: an engine could not be built here.
        """
        graphs: Any = cuda_graphs
        if isinstance(cuda_graphs, bool):
            graphs = "on" if cuda_graphs else "off"
        if graphs not in ("auto", "on", "off"):
            raise ConfigError(f"unknown cuda_graphs={graphs!r}", hint="give auto, on or off")
        if stream is not None and int(stream) in (0, 1, 2):
            raise ConfigError(
                "a session cannot work on the default stream",
                hint="give a stream that you made, or none",
            )
        if min(shapes, in_flight) < 1:
            raise ConfigError("shapes and in_flight are 1 at least", hint="leave them out")
        methods = (method,) if isinstance(method, str) else tuple(method)
        options = Options(
            device, methods, target, trust, build, rebuild, verify, check_memory, on_progress
        )
        self._inputs: Inputs = inputs
        self._how = graphs, shapes, in_flight, stream
        self._begin(opened(path, options), {})

    def twin(self) -> Session:
        """Another session over the same engines and weights, with a stream, memory and state of
        its own; it is closed by itself.

        Raises:
            DeviceError: the GPU has no room for it, or the session is closed.
        """
        with self._lock:
            work = self._ready()
            work.cuda.use()
            twin = object.__new__(type(self))
            twin._inputs, twin._how = self._inputs, (*self._how[:3], None)
            for constant in work.constants.values():
                constant.block.hold()
            twin._begin(self._opened, dict(work.constants))
            return twin

    def _begin(self, loaded: Opened, constants: dict[str, Constant]) -> None:
        graphs, shapes, in_flight, stream = self._how
        self._opened, self._lock, self._work = loaded, threading.RLock(), None
        bundle, routes, wait, cuda = loaded.bundle, loaded.routes, stream is None, loaded.cuda
        self._readers = {
            name: [
                Reader(spec, route.types[v], cuda.index, self._inputs, wait)
                for spec, v in zip(route.specs, route.inputs, strict=True)
            ]
            for name, route in routes.items()
        }
        self._first = next(iter(routes.values()))
        states = first_states(bundle, routes, cuda)
        self._work = work = Work(
            cuda,
            loaded.trt,
            cuda.new_stream() if stream is None else stream,
            wait,
            routes,
            states,
            constants,
            str(graphs),
            shapes,
            in_flight,
            lock=self._lock,
        )
        self._end = weakref.finalize(self, work.close)
        try:
            place_constants(bundle, routes, constants, cuda, work.stream)
            for state in states.values():
                state.reset(work.stream)
        except BaseException:
            self._end()
            raise

    # --- what it is ------------------------------------------------------------------------------
    @property
    def bundle(self) -> Bundle:
        """The bundle it was loaded from."""
        return self._opened.bundle

    @property
    def choice(self) -> Choice:
        """The variants and why this one was taken."""
        return self._opened.choice

    @property
    def variant(self) -> str:
        """The name of the variant that is loaded."""
        return self._opened.choice.variant

    @property
    def own_engines(self) -> Mapping[str, Finished]:
        """The engines that this machine built itself, by segment."""
        return dict(self._opened.own)

    @property
    def times(self) -> LoadTimes:
        """How long the phases of the start took."""
        return self._opened.times

    @property
    def memory(self) -> MemoryPlan:
        """What its engines were predicted to take of the GPU's memory."""
        return self._opened.memory

    @property
    def device(self) -> int:
        """The GPU's number."""
        return self._cuda.index

    @property
    def stream(self) -> int:
        """The address of the stream it works on."""
        return self._ready().handle

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods it runs, the first one by default."""
        return tuple(self._opened.routes)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the first method takes, in order."""
        return self._route(None).specs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the first method answers, in order."""
        return self.bundle.manifest.methods[self.methods[0]].outputs

    def segments(self, method: str | None = None) -> tuple[str, ...]:
        """The names of a method's segments, in order."""
        return tuple(step.engine.name for step in self._route(method).steps)

    @property
    def states(self) -> Mapping[str, DeviceArray]:
        """The state slots' present values on the GPU, good until the next call."""
        with self._lock:
            work = self._ready()
            return {
                name: DeviceArray(
                    state.shape,
                    state.dtype,
                    state.block.address,
                    work.cuda.index,
                    state.block,
                    work.order,
                    lambda array: call.fetched(work, array),
                )
                for name, state in work.states.items()
            }

    @property
    def _cuda(self) -> Cuda:
        return self._ready().cuda

    # --- calls -----------------------------------------------------------------------------------
    def run(self, inputs: Any, *, copy: bool = True, method: str | None = None) -> dict[str, Any]:
        """Runs a method and answers its outputs by name, as numpy arrays of the caller's own.

        Args:
            inputs: arrays by input name or in order: of numpy, or anything with ``__dlpack__``, on
                the host or on the session's GPU.
            copy: without it the outputs stay on the GPU, as ``DeviceArray``, and are overwritten by
                the next call of equal shapes.
            method: another method than the first.

        Raises:
            InputMismatchError: an input that is not what the method takes.
            DeviceError: TensorRT or the GPU fails, or the session is closed.
        """
        with self._lock:
            work, route, values = self._values(inputs, method)
            again = work.again
            if again is not None and not copy and again.route is route:
                for reader, value in zip(self._readers[route.method], values, strict=True):
                    if not reader.is_again(value):
                        break
                else:
                    return call.repeated(work, again)
            given = self._read(work, route, values)
            if copy:
                future = call.begin(work, route, given)
            elif work.owns_stream or any(one.array is not None for one in given):
                arrays, future = call.begin_on_gpu(work, route, given)
                if not work.owns_stream:
                    return arrays
            else:
                return call.run_on_gpu(work, route, given)
        return dict(future.result())

    def run_async(
        self, inputs: Any, *, copy: bool = True, method: str | None = None
    ) -> SessionFuture:
        """As ``run``, but does not wait: the result comes by ``SessionFuture.result``.

        The inputs of the host are read before it returns; those on the GPU must stay as they are
        until the result is there. With ``in_flight`` calls under way it waits for the oldest.
        """
        with self._lock:
            work, route, given = self._given(inputs, method)
            if copy:
                return call.begin(work, route, given)
            return call.begin_on_gpu(work, route, given)[1]

    def synchronize(self) -> None:
        """Waits until the GPU has done all that the session gave it, and takes the results."""
        with self._lock:
            work = self._ready()
            work.cuda.use()
            work.staging.settle()
            work.cuda.wait(work.stream)

    @property
    def clock(self) -> StreamClock:
        """What times the session's work on the GPU."""
        work = self._ready()
        return StreamClock(work.cuda, work.stream, self.synchronize)

    def check(self, inputs: Any, *, method: str | None = None) -> None:
        """Holds inputs against what a method takes, and does no more; raises as ``run``."""
        with self._lock:
            _, route, given = self._given(inputs, method)
            check_shapes(route, given)

    def reset(self, states: Mapping[str, Any] = NO_STATES) -> None:
        """Puts every state slot back to its first value, or to that of ``states``, numpy arrays.

        Raises:
            ConfigError: the session has no such slot.
            InputMismatchError: a value that is no array of the slot's shape.
        """
        with self._lock:
            work = self._ready()
            if unknown := sorted(states.keys() - work.states.keys()):
                raise ConfigError(
                    f"the session has no state {unknown[0]!r}, it has {', '.join(work.states)}",
                    hint="name slots of the methods it runs",
                )
            given = {
                name: state_value(name, value, work.states[name]) for name, value in states.items()
            }
            work.cuda.use()
            for name, state in work.states.items():
                state.reset(work.stream, given.get(name))

    def smoke(self, method: str | None = None) -> SmokeReport:
        """Replays the golden samples of a method, or of all, each from the state that belongs to
        it; the state is as after ``reset`` when it is done."""
        names = self.methods if method is None else (self._route(method).method,)
        with self._lock:
            return proved(self, names)

    def close(self) -> None:
        """Ends every call and gives engines and memory back; again does nothing.

        Arrays on the GPU that other libraries took through DLPack stay theirs.
        """
        with self._lock:
            self._end()
            self._work = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        how = "closed" if self._work is None else f"GPU {self._work.cuda.index}"
        return f"Session({self.bundle.manifest.name!r}, variant={self.variant!r}, {how})"

    def _ready(self) -> Work:
        if self._work is None:
            raise DeviceError("the session is closed", hint="open the bundle again")
        return self._work

    def _route(self, method: str | None) -> Route:
        routes = self._opened.routes
        if method is None:
            return self._first
        if method not in routes:
            raise ConfigError(
                f"the session has no method {method!r}, it has {', '.join(routes)}",
                hint="name it when you open the session",
            )
        return routes[method]

    def _given(self, inputs: Any, method: str | None) -> tuple[Work, Route, list[Given]]:
        work, route, values = self._values(inputs, method)
        return work, route, self._read(work, route, values)

    def _values(self, inputs: Any, method: str | None) -> tuple[Work, Route, list[Any]]:
        work, route = self._ready(), self._route(method)
        work.cuda.use()
        return work, route, in_order(route.names, inputs)

    def _read(self, work: Work, route: Route, values: list[Any]) -> list[Given]:
        work.again, readers = None, self._readers[route.method]
        return [r.read(v, work.handle) for r, v in zip(readers, values, strict=True)]
