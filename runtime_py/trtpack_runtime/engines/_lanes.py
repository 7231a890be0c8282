# SPDX-License-Identifier: Apache-2.0
"""Who runs on which execution contexts: a lane for each thread, up to a limit.

A lane is what one call at a time needs: an execution context for each profile it was called with,
the memory these work in, and the graphs captured from them. A thread keeps to its lane, so that
what its contexts were told stays true; beyond the limit threads wait for a lane to be free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from trtpack_runtime.errors import DeviceError

from ._contexts import Context


class Lane:
    """Execution contexts that take turns; whoever holds ``lock`` runs on them.

    ``context`` is the one that ran last, ``last`` the handle of the stream it ran on (None: none
    that must be waited for). Where calls came on ``several`` streams, ``event`` is recorded after
    each; ``done`` is what the default stream waits for. ``scratch`` is memory that the contexts
    after the first share, ``seen`` the streams it was used on, ``graphs`` what was captured; of
    a lane ``apart`` somebody else captures.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.take, self.give = self.lock.acquire, self.lock.release
        self.contexts: list[Context] = []
        self.context: Context | None = None
        self.scratch: Any = None
        self.last: int | None = None
        self.several = False
        self.event: Any = None
        self.done: Any = None
        self.seen: set[int] = set()
        self.apart = False
        self.graphs: Any = None
        self._owner: Callable[[], threading.Thread | None] = lambda: None

    @property
    def orphaned(self) -> bool:
        """Whether no living thread keeps to it."""
        owner = self._owner()
        return owner is None or not owner.is_alive()

    def belongs_here(self) -> None:
        """Makes it the present thread's."""
        self._owner = ref(threading.current_thread())


class Lanes:
    """The lanes of an engine."""

    def __init__(self, first: Lane, make: Callable[[], Lane], limit: int) -> None:
        """``make`` makes another one; where it raises DeviceError, those there are have to do."""
        self.all = [first]
        self.mine = threading.local()
        """``mine.lane`` is the lane that the present thread keeps to."""
        self.waiting = 0
        """Threads that wait for a lane; whoever gives one back then has to ``wake`` one."""
        self._make, self._limit = make, max(1, limit)
        self._free = threading.Condition()

    def taken(self) -> Lane:
        """A lane that is locked for this thread: its own where that is free; it waits for one."""
        own = getattr(self.mine, "lane", None)
        with self._free:
            self.waiting += 1
            try:
                while True:
                    lane = self._now(own)
                    if lane is not None:
                        self.mine.lane = lane
                        return lane
                    self._free.wait()
            finally:
                self.waiting -= 1

    def wake(self) -> None:
        """Tells a waiting thread that a lane was given back."""
        with self._free:
            self._free.notify()

    @contextmanager
    def everyone(self) -> Iterator[list[Lane]]:
        """All lanes locked, so that no call runs within the block and none is made."""
        with self._free:
            for lane in self.all:
                lane.take()
            try:
                yield self.all
            finally:
                for lane in self.all:
                    lane.give()
                self._free.notify_all()

    @contextmanager
    def on(self, lane: Lane) -> Iterator[None]:
        """This thread's calls run on a lane that is none of these until the block ends."""
        before = getattr(self.mine, "lane", None)
        self.mine.lane, lane.apart = lane, True
        try:
            yield
        finally:
            self.mine.lane = before

    def _now(self, own: Lane | None) -> Lane | None:
        """A lane if there is one now: the thread's, one nobody keeps to, a new one, any."""
        if own is not None and own.take(False):
            return own
        if own is None or own not in self.all:
            for lane in self.all:
                if lane.orphaned and lane.take(False):
                    lane.belongs_here()
                    return lane
            made = self._another()
            if made is not None:
                return made
        return next((lane for lane in self.all if lane.take(False)), None)

    def _another(self) -> Lane | None:
        if len(self.all) >= self._limit:
            return None
        try:
            lane = self._make()
        except DeviceError:  # no memory for more contexts: those there are serve everybody
            self._limit = len(self.all)
            return None
        lane.take()
        lane.belongs_here()
        self.all.append(lane)
        return lane
