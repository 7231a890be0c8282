# SPDX-License-Identifier: Apache-2.0
"""What CUDA refuses in the middle of a call: told, nothing lost, and the next call is right."""

from __future__ import annotations

import gc

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import Error
from tests.runtime.session.nets import CHAIN, COUNT, NETS, some
from tests.runtime.session.producers import OnGpu
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.session import Session

ZERO = numpy.zeros(3, "f4")
STEPS = ("cudaMemcpyAsync", "cudaEventRecord", "cudaGraphLaunch", "cudaEventSynchronize")


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("copy", [True, False])
def test_a_step_that_fails(lab: Lab, name: str, copy: bool) -> None:
    session = lab.session(NETS, CHAIN)
    for seed in range(3):  # its graph is there
        session.run([some(3, seed)])
    x = OnGpu(lab.cuda, some(3))
    for given in (x, some(3)):
        lab.cuda.fails[name] = Error.cudaErrorInvalidValue
        with pytest.raises(DeviceError, match="cudaErrorInvalidValue, in words"):
            session.run([given], copy=copy)
        lab.cuda.fails.clear()
        assert numpy.array_equal(session.run([given])["sum"], 5 * some(3))
    session.close()
    gc.collect(1)  # an error's traceback holds the call's inputs
    x.free()


def test_state_stays_where_a_call_failed(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": ZERO})
    found = []
    for step in range(12):
        if step % 3 == 2:
            lab.cuda.fails["cudaMemcpyAsync"] = Error.cudaErrorInvalidValue
            with pytest.raises(DeviceError):
                session.run([ZERO])
            lab.cuda.fails.clear()
        else:
            found.append(session.run([ZERO])["y"][0])
    assert found == list(range(8))


def test_after_a_fault_it_closes_without_a_word(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN)
    future = session.run_async([some()])
    lab.cuda.fault()
    for _ in range(2):
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            session.run([some()])
    session.close()
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        future.result()


def test_an_end_without_room_for_a_twin(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": ZERO})
    session.run([ZERO])
    lab.cuda.fails["cudaMalloc"] = Error.cudaErrorMemoryAllocation
    before = lab.cuda.leaked()
    with pytest.raises(DeviceError, match="out of memory"):
        session.twin()
    lab.cuda.fails.clear()
    assert lab.cuda.leaked() == before
    assert isinstance(session, Session)
    assert session.run([ZERO])["y"].tolist() == [1, 1, 1]
