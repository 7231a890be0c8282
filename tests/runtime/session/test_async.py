# SPDX-License-Identifier: Apache-2.0
"""Calls under way: their order, their memory, and waiting for them."""

from __future__ import annotations

import threading
import time

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import Error
from tests.runtime.session.nets import CHAIN, COUNT, DOUBLE, NETS, some
from trtpack_runtime.errors import DeviceError, InputMismatchError


def test_results_come_in_any_order(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN, in_flight=3)
    xs = [some(1 + seed % 4, seed) for seed in range(9)]
    futures = [session.run_async([x]) for x in xs]
    for x, future in sorted(zip(xs, futures, strict=True), key=lambda pair: pair[0][0, 0]):
        assert numpy.array_equal(future.result()["sum"], 4 * x + x)
        assert future.done()


def test_it_returns_before_the_gpu_is_done(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    future = session.run_async([some()])
    assert not future.done()
    with pytest.raises(TimeoutError, match=r"not at its end after 0\.01 s"):
        future.result(timeout=0.01)
    session.synchronize()
    assert future.done()
    assert numpy.array_equal(future.result(timeout=0)["y"], 2 * some())
    assert future.exception() is None


def test_an_input_may_be_changed_once_it_returned(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    x = some()
    future = session.run_async([x])
    x[...] = 0
    assert numpy.array_equal(future.result()["y"], 2 * some())


def test_a_full_house_waits_for_the_oldest_call(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE, in_flight=2)
    futures = [session.run_async([some(2, seed)]) for seed in range(3)]
    assert [future.done() for future in futures] == [True, False, False]
    assert len(lab.cuda.host_memory) == 4, "inputs and outputs of two calls"
    for seed, future in enumerate(futures):
        assert numpy.array_equal(future.result()["y"], 2 * some(2, seed))


def test_closing_ends_what_is_under_way(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    future = session.run_async([some()])
    session.close()
    assert numpy.array_equal(future.result()["y"], 2 * some())


def test_state_follows_the_order_of_the_calls(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": numpy.zeros(3, "f4")})
    futures = [session.run_async([numpy.zeros(3, "f4")]) for _ in range(7)]
    found = [future.result()["y"][0] for future in reversed(futures)]
    assert found == [6, 5, 4, 3, 2, 1, 0]


def test_a_fault_of_the_gpu_is_told_to_who_waits(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    future = session.run_async([some()])
    lab.cuda.fault(Error.cudaErrorIllegalAddress)
    assert future.done()
    with pytest.raises(DeviceError, match="for the GPU's work: cudaErrorIllegalAddress, in words"):
        future.result()
    assert isinstance(future.exception(), DeviceError)


def test_a_call_that_is_refused_leaves_no_slot_taken(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE, in_flight=1, cuda_graphs="off")
    for _ in range(3):
        with pytest.raises(InputMismatchError):
            session.run_async([some(9)])
        lab.trt.engines["double"].broken = True
        with pytest.raises(DeviceError, match="cannot run the engine: out of everything"):
            session.run_async([some()])
        lab.trt.engines["double"].broken = False
        assert numpy.array_equal(session.run([some()])["y"], 2 * some())


def test_one_may_wait_while_others_call(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE, in_flight=4)
    futures = [session.run_async([some(2, seed)]) for seed in range(4)]
    found: dict[int, object] = {}

    def wait(seed: int) -> None:
        found[seed] = futures[seed].result(timeout=10)["y"]

    threads = [threading.Thread(target=wait, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for seed in range(10, 20):
        assert numpy.array_equal(session.run([some(2, seed)])["y"], 2 * some(2, seed))
    for thread in threads:
        thread.join()
    assert all(numpy.array_equal(y, 2 * some(2, seed)) for seed, y in found.items())


def test_waiting_with_a_time_wakes_when_the_call_is_over(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    future = session.run_async([some()])
    timer = threading.Timer(0.02, session.synchronize)
    timer.start()
    began = time.monotonic()
    assert numpy.array_equal(future.result(timeout=5)["y"], 2 * some())
    assert time.monotonic() - began < 2
    timer.join()
