# SPDX-License-Identifier: Apache-2.0
"""A pool: every request its own answer or error, room kept, nothing left behind."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, TimeoutError, wait
from typing import Any

import pytest

from tests.runtime.desks import SECONDS, Thing, ask, gate, held, pool_of
from trtpack_runtime.errors import BusyError

__all__ = ["gate"]


# --- answers -------------------------------------------------------------------------------------
def test_many_threads_get_their_own_answers() -> None:
    running, most, lock = 0, 0, threading.Lock()
    answers: dict[tuple[int, int], Any] = {}

    def work(key: tuple[int, int]) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        if key[1] % 7 == 3:
            raise ValueError(key)
        return key

    def caller(n: int) -> None:
        for i in range(60):
            future = ask(pool, work, (n, i))
            try:
                answers[n, i] = future.result(SECONDS)
            except ValueError as error:
                answers[n, i] = error.args

    with pool_of(3, 4) as pool:
        threads = [threading.Thread(target=caller, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert answers == {(n, i): ((n, i),) if i % 7 == 3 else (n, i)
                       for n in range(8) for i in range(60)}  # fmt: skip
    assert 1 <= most <= 3


def test_requests_begin_in_the_order_they_came(gate: threading.Event) -> None:
    done: list[int] = []
    with pool_of(1, 10) as pool:
        held(pool, gate)
        for i in range(10):
            ask(pool, done.append, i)
        gate.set()
    assert done == list(range(10))


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_an_error_is_its_own_requests_only(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("this one")

    with pool_of(1, 8) as pool:
        futures = [ask(pool, fail if i % 2 else str, *() if i % 2 else (i,)) for i in range(8)]
        for i, future in enumerate(futures):
            if i % 2:
                with pytest.raises(error, match="this one"):
                    future.result(SECONDS)
            else:
                assert future.result(SECONDS) == str(i)


# --- room ----------------------------------------------------------------------------------------
def test_a_full_queue_is_told_at_once_or_after_a_while(gate: threading.Event) -> None:
    with pool_of(1, 2) as pool:
        held(pool, gate)
        waiting = [ask(pool, str, n) for n in range(2)]
        for timeout in (0.0, 0.02):
            with pytest.raises(BusyError, match="2 requests wait") as caught:
                ask(pool, str, 9, timeout=timeout)
        assert "try again later" in caught.value.hint
        assert (pool.workers, pool.waiting) == (1, 2)
        gate.set()
        assert [future.result(SECONDS) for future in waiting] == ["0", "1"]
        assert ask(pool, str, 5, timeout=SECONDS).result(SECONDS) == "5"


def test_who_waits_for_room_gets_it(gate: threading.Event) -> None:
    with pool_of(1, 1) as pool:
        held(pool, gate)
        first = ask(pool, str, 1)
        answers: list[str] = []
        caller = threading.Thread(target=lambda: answers.append(ask(pool, str, 2).result()))
        caller.start()
        gate.set()
        caller.join(SECONDS)
        assert (first.result(SECONDS), answers) == ("1", ["2"])


def test_a_callback_may_submit_and_never_waits(gate: threading.Event) -> None:
    told: list[Any] = []
    over = threading.Event()

    def again(_: Future[Any]) -> None:
        for n in range(2):
            try:
                told.append(ask(pool, str, n))
            except BusyError as error:
                told.append(error)
        over.set()

    with pool_of(1, 1) as pool:
        held(pool, gate).add_done_callback(again)
        gate.set()
        assert over.wait(SECONDS)
    assert told[0].result(SECONDS) == "0"
    assert isinstance(told[1], BusyError)


# --- callers that give up ------------------------------------------------------------------------
def test_a_cancelled_request_frees_its_place_and_is_never_run(gate: threading.Event) -> None:
    ran: list[int] = []
    with pool_of(1, 1) as pool:
        held(pool, gate)
        thing = Thing()
        seen = weakref.ref(thing)
        given_up = ask(pool, lambda _: ran.append(1), thing)
        del thing
        assert given_up.cancel()
        assert pool.waiting == 0
        assert seen() is None
        assert given_up in wait([given_up], SECONDS).done
        kept = ask(pool, str, 2, timeout=0)
        gate.set()
        assert kept.result(SECONDS) == "2"
    with pytest.raises(CancelledError):
        given_up.result(SECONDS)
    assert ran == []


def test_a_request_that_runs_is_not_cancelled(gate: threading.Event) -> None:
    with pool_of() as pool:
        future = held(pool, gate)
        assert not future.cancel()
        with pytest.raises(TimeoutError):
            future.result(0.001)
        gate.set()
        assert future.result(SECONDS) == "held"


@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_nobody_wants_is_gone(fails: bool) -> None:
    def answer(given: Thing) -> Thing:
        made = Thing()
        seen.extend((weakref.ref(made), weakref.ref(given)))
        if fails:
            raise ValueError("no")
        return made

    seen: list[weakref.ref[Thing]] = []
    with pool_of() as pool:
        wait([ask(pool, answer, Thing())], SECONDS)
        ask(pool, str).result(SECONDS)  # the worker is past it
        assert [ref() for ref in seen] == [None, None]


def test_an_error_keeps_nothing_of_its_request() -> None:
    def fail(given: Thing) -> None:
        made = Thing()
        seen.extend((weakref.ref(made), weakref.ref(given)))
        raise ValueError("no")

    seen: list[weakref.ref[Thing]] = []
    with pool_of() as pool:
        error = ask(pool, fail, Thing()).exception(SECONDS)
        assert [ref() for ref in seen] == [None, None]
        assert error is not None
        assert error.__traceback__ is not None


# --- in a row ------------------------------------------------------------------------------------
def test_map_answers_in_order_and_reads_no_further_than_there_is_room() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(50):
            read.append(n)
            yield n

    with pool_of(2, 3) as pool:
        answers = pool.map((str, n) for n in numbers())
        assert read == []
        assert next(answers) == "0"
        assert len(read) <= 2 + 3 + 1
        assert list(answers) == [str(n) for n in range(1, 50)]


def test_map_cancels_the_request_that_took_too_long(gate: threading.Event) -> None:
    ran: list[int] = []
    with pool_of(workers=1) as pool:
        held(pool, gate)
        with pytest.raises(TimeoutError):
            next(pool.map([(ran.append, 1)], timeout=0.0))
        gate.set()
    assert ran == []


def test_map_stops_where_a_request_fails_or_the_caller_does(gate: threading.Event) -> None:
    ran: list[int] = []

    def run(n: int) -> int:
        if n == 1:
            assert gate.wait(SECONDS)
            raise ValueError(n)
        ran.append(n)
        return n

    with pool_of(1, 4) as pool:
        answers = pool.map((run, n) for n in range(9))
        assert next(answers) == 0
        answers.close()  # type: ignore[attr-defined]  # a generator
        assert pool.waiting == 0
        gate.set()
        with pytest.raises(ValueError, match="1"):
            list(pool.map((run, n) for n in (1, 2, 3)))
        gate.clear()
        slow = pool.map([(gate.wait, SECONDS)], timeout=0.0)
        with pytest.raises(TimeoutError):
            next(slow)
        gate.set()
    assert ran[0] == 0
    assert set(ran) <= {0, 2, 3}
