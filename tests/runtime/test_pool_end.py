# SPDX-License-Identifier: Apache-2.0
"""A pool's beginning and end, and what it makes of a bundle."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade
from tests.runtime.desks import SECONDS, Desk, ask, gate, held, pool_of
from trtpack_runtime import load
from trtpack_runtime.errors import ConfigError, InputMismatchError
from trtpack_runtime.pool import Pool

__all__ = ["gate"]


# --- the end -------------------------------------------------------------------------------------
def test_closing_finishes_what_waits(gate: threading.Event) -> None:
    desk = Desk()
    pool = pool_of(2, 4, desk)
    running = [held(pool, gate), held(pool, gate)]
    waiting = [ask(pool, str, n) for n in range(4)]
    gate.set()
    pool.close()
    assert [f.result(0) for f in running + waiting] == ["held", "held", "0", "1", "2", "3"]
    assert [twin.closed for twin in desk.twins] == [True, True]
    assert not desk.closed
    pool.close()
    with pytest.raises(ConfigError, match="the pool is closed"):
        ask(pool, str)


def test_closing_at_once_cancels_what_waits(gate: threading.Event) -> None:
    pool = pool_of(1, 4)
    running = held(pool, gate)
    waiting = [ask(pool, str, n) for n in range(4)]
    pool.close(wait=False)
    assert all(future.cancelled() for future in waiting)
    gate.set()
    assert running.result(SECONDS) == "held"
    pool.close()


def test_an_error_in_the_block_gives_up_what_waits(gate: threading.Event) -> None:
    pool = pool_of(1, 4)
    running = held(pool, gate)
    waiting = ask(pool, str)
    threading.Timer(0.01, gate.set).start()
    with pytest.raises(KeyError), pool:
        raise KeyError
    assert (running.result(0), waiting.cancelled()) == ("held", True)


def test_who_waits_for_room_is_told_that_it_closes(gate: threading.Event) -> None:
    pool = pool_of(1, 1)
    held(pool, gate)
    ask(pool, str)
    told: list[BaseException] = []

    def caller() -> None:
        try:
            ask(pool, str)
        except ConfigError as error:
            told.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    pool.close(wait=False)
    thread.join(SECONDS)
    assert [str(error) for error in told] == ["the pool is closed"]
    gate.set()


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_while_others_submit_loses_no_request(cancel: bool) -> None:
    for _ in range(20):
        pool = pool_of(2, 2)
        start = threading.Barrier(4)
        futures: list[Future[Any]] = []

        def caller() -> None:
            start.wait(SECONDS)  # noqa: B023 it ends within the round
            try:
                for n in range(50):
                    futures.append(ask(pool, str, n))  # noqa: B023 it ends within the round
            except ConfigError:
                return

        callers = [threading.Thread(target=caller) for _ in range(3)]
        for thread in callers:
            thread.start()
        start.wait(SECONDS)
        pool.close(wait=not cancel)
        for thread in callers:
            thread.join(SECONDS)
        pool.close()
        assert all(future.done() for future in futures)
        assert cancel or not any(future.cancelled() for future in futures)


def test_a_dropped_pool_finishes_and_its_threads_end() -> None:
    desk = Desk()
    pool = pool_of(2, 2, desk)
    futures = [ask(pool, str, n) for n in range(4)]
    threads = [t for t in threading.enumerate() if t.name.startswith("trtpack-pool")]
    del pool
    gc.collect()
    assert [future.result(SECONDS) for future in futures] == ["0", "1", "2", "3"]
    for thread in threads:
        thread.join(SECONDS)
    assert all(twin.closed for twin in desk.twins)


LEFT_OPEN = """
import sys, time
from trtpack_runtime import Pool
class Desk:
    states = {}
    def twin(self): return Desk()
    def run(self, seconds, method): time.sleep(seconds)
    def close(self): sys.stdout.write("closed\\n")
pool = Pool(Desk(), workers=2, queue=50)
futures = [pool.submit(0.1) for _ in range(52)]
while pool.waiting == 52:
    time.sleep(0.01)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""


def test_the_interpreter_ends_without_what_waits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=3, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\nclosed\n", "")


# --- how one is made -----------------------------------------------------------------------------
@pytest.mark.parametrize(("workers", "queue"), [(0, None), (-1, 3), (2, 0)])
def test_counts_below_one_are_refused(workers: int, queue: int | None) -> None:
    with pytest.raises(ConfigError, match="a pool needs at least one"):
        pool_of(workers, queue)


def test_workers_are_closed_where_one_cannot_be_made() -> None:
    class Small(Desk):
        def twin(self) -> Desk:
            if len(self.twins) == 2:
                raise MemoryError
            return super().twin()

    desk = Small()
    with pytest.raises(MemoryError):
        pool_of(3, None, desk)
    assert [twin.closed for twin in desk.twins] == [True, True]


def test_a_state_is_refused_or_begun_anew() -> None:
    desk = Desk(states={"cache.k": None})
    with pytest.raises(ConfigError, match=r"keeps state between calls \(cache\.k\)") as caught:
        pool_of(1, None, desk)
    assert "fresh_state=True" in caught.value.hint
    with Pool(desk, 1, fresh_state=True) as pool:  # type: ignore[arg-type]  # stands for a session
        assert ask(pool, lambda: desk.twins[0].resets).result(SECONDS) == 1
        assert ask(pool, lambda: desk.twins[0].resets).result(SECONDS) == 2


def test_a_session_runs_the_method_that_was_asked_for() -> None:
    class Two(Desk):
        def twin(self) -> Desk:
            return Two()

        def run(self, inputs: Any, *, method: str | None = None) -> Any:
            return {"method": method, "inputs": inputs}

    with Pool(Two(), method="decode") as pool:  # type: ignore[arg-type]  # stands for a session
        assert pool.submit([1]).result(SECONDS) == {"method": "decode", "inputs": [1]}
        with pytest.raises(InputMismatchError):
            pool.submit([1], copy=False).result(SECONDS)


# --- over a module -------------------------------------------------------------------------------
@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return handmade.write(tmp_path / "bundle.tar")


def test_a_module_is_called_like_the_original(bundle: Path) -> None:
    model, module = handmade.Classifier(), load(bundle)
    calls = [(torch.randn(n, 4), torch.full((1,), float(n))) for n in (1, 3, 8)]
    with Pool(module, 2, fresh_state=True) as pool:
        futures = [pool.submit(x, scale=scale) for x, scale in calls]
        for (x, scale), future in zip(calls, futures, strict=True):
            torch.testing.assert_close(future.result(SECONDS), model(x, scale=scale))
        with pytest.raises(InputMismatchError, match="dimension 1 is 5, wanted 4"):
            pool.submit(torch.randn(2, 5), scale=calls[0][1]).result(SECONDS)
        with pytest.raises(InputMismatchError, match="got none"):
            pool.submit().result(SECONDS)
        assert pool.submit(calls[1][0], scale=calls[1][1]).result(SECONDS)["batch"] == 3
    assert module.states["calls"] == 0


def test_a_path_is_loaded_with_a_context_for_each_worker(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def loaded(path: Path, options: Any) -> Desk:
        told.append((path, options))
        return Desk()

    monkeypatch.setattr("trtpack_runtime.loading.load", loaded)
    Pool(bundle, 7).close()
    assert told == [(bundle, {"contexts": 7})]


def test_a_bundle_is_loaded_by_its_path(bundle: Path) -> None:
    x, scale = torch.randn(2, 4), torch.ones(1)
    with Pool(bundle, fresh_state=True) as pool:
        answer = pool.submit(x, scale=scale).result(SECONDS)
    torch.testing.assert_close(answer, handmade.Classifier()(x, scale=scale))
    with pytest.raises(ConfigError, match="keeps state between calls"):
        Pool(bundle)
    with pytest.raises(ConfigError, match="no method 'decode'"):
        Pool(bundle, method="decode", fresh_state=True)
