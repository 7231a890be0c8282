# SPDX-License-Identifier: Apache-2.0
"""A pool over a session: twins at work at the same time, without torch."""

from __future__ import annotations

import sys

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import CHAIN, COUNT, NETS, some
from trtpack_runtime.errors import InputMismatchError
from trtpack_runtime.pool import Pool


def test_requests_are_answered_by_twins(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    session = lab.session(NETS, CHAIN)
    with Pool(session, workers=3, queue=4) as pool:
        xs = [some(1 + seed % 4, seed) for seed in range(40)]
        futures = [pool.submit({"x": x}) for x in xs]
        wrong = pool.submit({"x": some(9)})
        for x, future in zip(xs, futures, strict=True):
            assert numpy.array_equal(future.result(timeout=60)["sum"], 4 * x + x)
        with pytest.raises(InputMismatchError, match="dimension 0 is 9"):
            wrong.result(timeout=60)
    assert numpy.array_equal(session.run([xs[0]])["sum"], 5 * xs[0]), "it is its owner's still"
    session.close()
    assert lab.cuda.leaked() == []


def test_a_request_is_one_set_of_inputs(lab: Lab) -> None:
    with Pool(lab.session(NETS, CHAIN), workers=1) as pool:
        for wrong in (pool.submit(), pool.submit(some(), some()), pool.submit(x=some())):
            with pytest.raises(InputMismatchError, match="wanted a session's inputs as one"):
                wrong.result(timeout=60)
        assert pool.submit([some()]).result(timeout=60)["sum"].shape == (2, 3)


def test_each_worker_has_state_of_its_own(lab: Lab) -> None:
    zero = numpy.zeros(3, "f4")
    session = lab.session(NETS, COUNT, states={"s": zero})
    with Pool(session, workers=2, fresh_state=True) as pool:
        futures = [pool.submit([zero + i]) for i in range(10)]
        assert [f.result(timeout=60)["y"][0] for f in futures] == list(range(10))
    assert session.run([zero])["y"].tolist() == [0, 0, 0]
