# SPDX-License-Identifier: Apache-2.0
"""Several requests at once over one loaded bundle: workers, each on a stream of its own, behind a
bounded queue.

    >>> with Pool("detector.tar", workers=4, queue=16) as pool:
    ...     future = pool.submit(image)          # waits while sixteen requests wait
    ...     boxes = future.result(timeout=1.0)   # computed: nothing is left to be waited for
    ...     for boxes in pool.map(images):       # in order, the queue never overrun
    ...         ...

PyTorch is imported only where it runs the bundle.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

from .errors import BusyError, ConfigError

if TYPE_CHECKING:
    from .module import BundleModule
    from .session import Session

WAITING_PER_WORKER = 2
"""Requests that may wait for each worker where nothing is said."""


class Worker(Protocol):
    """One of a pool's: a loaded program that a single thread calls."""

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arrival: Any) -> Any:
        """The answer to a request, computed; ``arrival`` is what ``Staff.arrive`` said of it."""

    def close(self) -> None:
        """Gives back what it holds."""


class Staff(Protocol):
    """Makes a pool's workers."""

    def arrive(self) -> Any:
        """Notes, in the thread that submits a request, when its inputs are there."""

    def worker(self) -> Worker:
        """One more worker, over the engines and weights of the others."""


class Pool:
    """Runs requests on ``workers`` threads, in the order in which they were submitted.

    Every worker has its own stream, execution contexts and state; engines and weights are shared.
    ``submit`` may be called from any thread. What is wrong with a request is raised by its own
    future only. Neither the pool's end nor that of the interpreter leaves work behind on a device.

    Args:
        model: a ``BundleModule`` or a ``Session``, which stays its owner's and is not called
            itself, or the path of a bundle, which is loaded with ``load``. A module's engines run
            as many calls at a time as it was loaded with ``options={"contexts": N}``, 4 unless
            given; a path's as there are workers.
        workers: how many requests run at a time.
        queue: how many more may wait, twice the workers unless given.
        method: which method runs, a module's ``forward`` or a session's first unless given.
        fresh_state: begin each request from the bundle's first state. A bundle with state needs
            it: requests have no order that a state could follow.

    Raises:
        ConfigError: a count below 1, no such method, or a bundle that keeps state.
        TrtpackError: as ``load``.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | BundleModule | Session,
        workers: int = 2,
        queue: int | None = None,
        *,
        method: str | None = None,
        fresh_state: bool = False,
    ) -> None:
        room = WAITING_PER_WORKER * workers if queue is None else queue
        for count, what in ((workers, "worker"), (room, "request that may wait")):
            if count < 1:
                raise ConfigError(f"a pool needs at least one {what}, not {count}")
        self._staff = _staff(model, workers, method, fresh_state)
        self._line = _Line(room)
        with ExitStack() as undo:
            made = []
            for _ in range(workers):
                made.append(self._staff.worker())
                undo.callback(made[-1].close)
            undo.pop_all()
        self._at_once = workers + room
        _end_at_exit(self._line)
        weakref.finalize(self, self._line.close, cancel=False).atexit = False
        for n, worker in enumerate(made):
            self._line.begin(worker, f"trtpack-pool-{n}")

    @property
    def workers(self) -> int:
        """How many requests run at a time."""
        return len(self._line.threads)

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return len(self._line)

    def submit(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Future[Any]:
        """Hands in a request and answers its future.

        Tensors on a GPU may still be being computed on the current stream: the request waits for
        them. They are not to be changed until the future is done. Its result can be used on the
        stream that is current here, and on others after synchronising with that.

        A future that is cancelled before a worker takes it frees its place, and is never run.

        Args:
            args: the method's arguments; of a session, its inputs as ``Session.run`` takes them.
            timeout: seconds to wait while the queue is full, without end unless given. A worker's
                thread, which may submit in a future's callback, never waits.
            kwargs: the method's keyword arguments.

        Raises:
            BusyError: the queue was full all that time.
            ConfigError: the pool is closed.
        """
        request = _Request(Future(), args, kwargs, self._staff.arrive())
        self._line.put(request, timeout)
        return request.future

    def map(self, *iterables: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
        """Answers in order the method's results for each set of arguments, as ``map`` does.

        No more are handed in than workers and queue take; the rest of ``iterables`` is read as
        results are taken. Where the caller stops, or a request fails, those left are cancelled.

        Args:
            iterables: one of each argument.
            timeout: seconds that the next result may take, without end unless given.

        Raises:
            concurrent.futures.TimeoutError: a result took longer.
            Exception: whatever a request raises, in its place.
        """
        futures: deque[Future[Any]] = deque()
        try:
            for args in zip(*iterables, strict=False):
                if len(futures) == self._at_once:
                    yield _result(futures, timeout)
                futures.append(self.submit(*args))
            while futures:
                yield _result(futures, timeout)
        finally:
            for future in futures:
                future.cancel()

    def close(self, wait: bool = True) -> None:
        """Takes no more requests. Closing again does nothing more.

        Args:
            wait: run what waits in the queue, and return when all is done. Otherwise what waits is
                cancelled, and a request that runs is finished behind the caller's back.
        """
        self._line.close(cancel=not wait)
        if wait:
            self._line.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finishes everything; after an error, only what runs already."""
        self._line.close(cancel=error is not None)
        self._line.join()


def _result(futures: deque[Future[Any]], timeout: float | None) -> Any:
    """The first one's result; it stays among them where that takes too long."""
    result = futures[0].result(timeout)
    futures.popleft()
    return result


@dataclass(eq=False)
class _Request:
    future: Future[Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arrival: Any


class _Line:
    """The requests that wait, in order, and the threads that take them; it outlives its pool."""

    def __init__(self, room: int) -> None:
        self.threads: list[threading.Thread] = []
        self._room, self._closed = room, False
        self._waiting: OrderedDict[Future[Any], _Request] = OrderedDict()
        self._lock = threading.RLock()  # a pool may be collected while its thread holds it
        self._came, self._left = threading.Condition(self._lock), threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, worker: Worker, name: str) -> None:
        """Starts a thread that calls ``worker`` until the line is closed and empty."""
        thread = threading.Thread(target=_work, args=(self, worker), name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def put(self, request: _Request, timeout: float | None) -> None:
        """Adds a request at the end, once there is room."""
        if threading.current_thread() in self.threads:
            timeout = 0
        with self._lock:
            if not self._left.wait_for(self._may_come, timeout):
                raise BusyError(
                    f"{len(self._waiting)} requests wait, the pool takes no more",
                    hint="try again later, or give the pool more workers or a longer queue",
                )
            if self._closed:
                raise ConfigError("the pool is closed", hint="make another one")
            self._waiting[request.future] = request
            self._came.notify()
        request.future.add_done_callback(self._forget)

    def take(self) -> _Request | None:
        """The next request, which can no longer be cancelled; None once there will be none."""
        while True:
            with self._lock:
                self._came.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return None
                _, request = self._waiting.popitem(last=False)
                self._left.notify()
            if request.future.set_running_or_notify_cancel():
                return request

    def close(self, *, cancel: bool) -> None:
        """Takes no more requests, and cancels those that wait if asked to."""
        with self._lock:
            self._closed = True
            self._came.notify_all()
            self._left.notify_all()
            waiting = list(self._waiting) if cancel else []
        for future in waiting:
            future.cancel()

    def join(self) -> None:
        """Waits for every thread but the one that asks."""
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()

    def _may_come(self) -> bool:
        return self._closed or len(self._waiting) < self._room

    def _forget(self, future: Future[Any]) -> None:
        """Frees the place of a request that was given up."""
        with self._lock:
            gone = self._waiting.pop(future, None)
            if gone is not None:
                self._left.notify()
        if gone is not None:
            future.set_running_or_notify_cancel()  # wakes who waits for it among others


def _work(line: _Line, worker: Worker) -> None:
    try:
        while (request := line.take()) is not None:
            _serve(request, worker)
            del request  # idle, it keeps no one's inputs
    finally:
        worker.close()


def _serve(request: _Request, worker: Worker) -> None:
    """Runs one request, in a frame of its own, so that nothing of it is left."""
    future = request.future
    try:
        result = worker.run(request.args, request.kwargs, request.arrival)
    except BaseException as error:  # the thread serves others yet
        request.args, request.kwargs = (), {}
        traceback.clear_frames(error.__traceback__)  # nor keeps an error what it was about
        future.set_exception(error)
    else:
        request.args, request.kwargs = (), {}
        future.set_result(result)
    finally:
        del future, request  # the error's traceback leads here


_OPEN: weakref.WeakSet[_Line] = weakref.WeakSet()


def _end_at_exit(line: _Line) -> None:
    _OPEN.add(line)
    _register()


@cache
def _register() -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    """Ends every pool that is left, so that no thread is inside a driver that goes away."""
    lines = list(_OPEN)
    for line in lines:
        line.close(cancel=True)
    for line in lines:
        line.join()


def _staff(
    model: str | os.PathLike[str] | BundleModule | Session,
    workers: int,
    method: str | None,
    fresh_state: bool,
) -> Staff:
    from .pool_workers import ModuleStaff, SessionStaff

    if isinstance(model, str | os.PathLike):
        from .loading import load

        model = load(model, options={"contexts": workers})
    if sys.modules.get("torch") is not None:
        from .module import BundleModule

        if isinstance(model, BundleModule):
            return ModuleStaff(model, method, fresh_state=fresh_state)
    return SessionStaff(cast("Session", model), method, fresh_state=fresh_state)
