# SPDX-License-Identifier: Apache-2.0
"""A double of a session whose requests are functions, for tests of pools."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from trtpack_runtime.pool import Pool

SECONDS = 20.0
"""Longer than anything here takes; where it runs out, the test has failed."""


class Desk:
    """Stands for a session: a request is a function, which the worker calls."""

    def __init__(self, twins: list[Desk] | None = None, states: Any = None) -> None:
        self.twins = [] if twins is None else twins
        self.states = states or {}
        self.resets, self.closed = 0, False

    def twin(self) -> Desk:
        self.twins.append(Desk(self.twins, self.states))
        return self.twins[-1]

    def run(self, request: tuple[Any, ...], *, method: str | None = None) -> Any:
        function, *args = request
        return function(*args)

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


def pool_of(workers: int = 1, queue: int | None = None, desk: Desk | None = None) -> Pool:
    return Pool(desk or Desk(), workers, queue)  # type: ignore[arg-type]  # stands for a session


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open it and requests that wait for it go on; it is open when the test is over."""
    opened = threading.Event()
    yield opened
    opened.set()


def ask(
    pool: Pool, function: Callable[..., Any], *args: Any, timeout: float | None = None
) -> Future[Any]:
    """Submits a request that calls ``function``."""
    return pool.submit((function, *args), timeout=timeout)


def held(pool: Pool, gate: threading.Event) -> Future[Any]:
    """A request that a worker is busy with until the gate opens."""
    began = threading.Event()

    def run() -> str:
        began.set()
        assert gate.wait(SECONDS)
        return "held"

    future = ask(pool, run)
    assert began.wait(SECONDS)
    return future


class Thing:
    """Something that can be seen to be gone."""
