# SPDX-License-Identifier: Apache-2.0
"""Calls from several threads: each has execution contexts of its own, up to a limit.

The double's engine runs on the host, so a thread that is held within a run holds its lane.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.runtime.gpu_double import Gpu, gpu_of
from tests.runtime.running import Trt, runner
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.errors import DeviceError

SECONDS = 20
"""A test that waits longer has failed."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; callers are on the default stream."""
    return gpu_of(monkeypatch)


class Held:
    """Threads that are within a run until they are let on."""

    def __init__(self, trt: Trt) -> None:
        self.within = threading.Semaphore(0)
        self._on = threading.Event()
        trt.engine.during_a_run = self._wait

    def _wait(self) -> None:
        self.within.release()
        assert self._on.wait(SECONDS)

    def await_runs(self, count: int) -> None:
        """Waits until so many more threads are within a run."""
        for _ in range(count):
            assert self.within.acquire(timeout=SECONDS)

    def none_more(self) -> None:
        """Nobody else comes in."""
        assert not self.within.acquire(timeout=0.05)

    def let_on(self) -> None:
        """Lets everybody on, also who comes later."""
        self._on.set()


def doubles(run: EngineRunner, batch: int = 2) -> None:
    x = torch.rand(batch, 3)
    (y,) = run([x])
    assert torch.equal(y, x * 2)


@pytest.mark.parametrize("kind", [EngineRunner, GraphRunner])
def test_threads_run_side_by_side_up_to_the_limit(gpu: Gpu, kind: Callable[..., Any]) -> None:
    trt = Trt(gpu)
    run = runner(trt, kind=kind, limit=2)
    held = Held(trt)
    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[None]] = [pool.submit(doubles, run, 1 + i) for i in range(4)]
        held.await_runs(2)
        held.none_more()
        assert len(run.contexts) == 2
        held.let_on()
        for call in calls:
            call.result(SECONDS)
    assert len(run.contexts) == 2


def test_a_thread_keeps_to_its_contexts(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    doubles(run, 1)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            pool.submit(doubles, run, 4).result(SECONDS)
            doubles(run, 1)
    assert [note for note in gpu.journal if note[0] == "0"] == ["0: 1", "0: 4"]
    assert len(run.contexts) == 2


def test_a_thread_that_ended_leaves_its_contexts_to_another(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    for _ in range(3):
        thread = threading.Thread(target=doubles, args=(run,))
        thread.start()
        thread.join(SECONDS)
    assert len(run.contexts) == 1


def test_the_thread_that_loaded_takes_no_contexts_by_that(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(doubles, run).result(SECONDS)
        assert len(run.contexts) == 1


def test_without_memory_for_more_threads_share_what_there_is(gpu: Gpu) -> None:
    trt = Trt(gpu)
    run = runner(trt)
    doubles(run)
    trt.engine.has_room = False
    held = Held(trt)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(doubles, run, 1 + i) for i in range(2)]
        held.await_runs(1)
        held.none_more()
        held.let_on()
        for call in calls:
            call.result(SECONDS)
    assert len(run.contexts) == 1


def test_a_run_that_fails_gives_its_contexts_back(gpu: Gpu) -> None:
    trt = Trt(gpu)
    run = runner(trt, limit=1)
    trt.engine.broken = True
    for _ in range(2):
        with pytest.raises(DeviceError, match="cannot run"):
            doubles(run)
    trt.engine.broken = False
    with ThreadPoolExecutor(1) as pool:
        pool.submit(doubles, run).result(SECONDS)


def test_each_thread_is_on_its_own_stream_without_waiting_for_another(gpu: Gpu) -> None:
    run, both = runner(Trt(gpu)), threading.Barrier(2)

    def call(name: str) -> None:
        both.wait(SECONDS)
        gpu.caller_on(name)
        doubles(run)
        doubles(run)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(call, name) for name in ("one", "two")]:
            done.result(SECONDS)
    assert not [note for note in gpu.journal if "waits" in note]


def test_weights_are_exchanged_between_calls(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    refitted = threading.Event()
    monkeypatch.setattr("trtpack_runtime.engines._execute.refit", lambda *given: refitted.set())
    trt = Trt(gpu)
    run = runner(trt)
    held = Held(trt)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(doubles, run)
        held.await_runs(1)
        exchange = pool.submit(run.refit, {})
        assert not refitted.wait(0.05)
        held.let_on()
        call.result(SECONDS)
        exchange.result(SECONDS)
    doubles(run)


@pytest.mark.parametrize("kind", [EngineRunner, GraphRunner])
def test_many_threads_and_shapes_are_all_right(gpu: Gpu, kind: Callable[..., Any]) -> None:
    """Also where they share lanes, memory stays or moves, and outputs are the caller's."""
    run = runner(Trt(gpu, "abz"), kind=kind, limit=3)
    stays = torch.rand(3, 3)

    def many(seed: int) -> None:
        gpu.caller_on(f"stream {seed}")
        chosen = random.Random(seed)
        for _ in range(150):
            a = stays if chosen.random() < 0.3 else torch.rand(chosen.randint(1, 4), 3)
            b = torch.rand(3, len(a)).t() if chosen.random() < 0.1 else torch.rand(len(a), 3)
            z = torch.empty(len(a), 3)
            if chosen.random() < 0.5:
                (z,) = run([a, b])
            else:
                run.run_into([a, b], [z])
            assert torch.equal(z, 2 * (a + b))

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(many, seed) for seed in range(6)]:
            done.result(SECONDS)
