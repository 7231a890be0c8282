# SPDX-License-Identifier: Apache-2.0
"""Numbers, shapes and types of a session's calls, and what it refuses."""

from __future__ import annotations

import gc
import threading

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import CHAIN, DOUBLE, FIXED, NETS, WHOLE, some
from trtpack_runtime.errors import ConfigError, DeviceError, InputMismatchError
from trtpack_runtime.session import Session

EVERY_WAY = pytest.mark.parametrize("graphs", ["off", "auto"])


@EVERY_WAY
@pytest.mark.parametrize("old", [False, True])
def test_numbers_of_several_shapes(lab: Lab, graphs: str, old: bool) -> None:
    session = lab.session(NETS, DOUBLE, cuda_graphs=graphs, narrow=old)
    for seed, batch in enumerate((1, 4, 2, 2, 2, 4, 1, 1, 4)):
        x = some(batch, seed)
        assert numpy.array_equal(session.run({"x": x})["y"], 2 * x)


@EVERY_WAY
def test_segments_run_in_order_over_memory_that_is_kept(lab: Lab, graphs: str) -> None:
    session = lab.session(NETS, CHAIN, cuda_graphs=graphs)
    for seed in range(6):
        x = some(3, seed)
        found = session.run([x])
        assert numpy.array_equal(found["sum"], 4 * x + x)
        assert numpy.array_equal(found["mean"], (4 * x + x).mean(1))
        assert numpy.array_equal(found["same"], x)
        if seed == 1:
            allocations = lab.cuda.allocations
    assert lab.cuda.allocations == allocations, "a call of known shapes allocates nothing"
    assert len(lab.trt.told) == (4 if graphs == "off" else 8), "shapes are told once a context"


def test_what_it_answers_is_the_callers_own(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    x = some()
    first = session.run([x])["y"]
    session.run([x + 1])
    assert numpy.array_equal(first, 2 * x)
    assert first.flags.writeable


def test_an_input_may_lie_as_it_likes(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    for x in (some(3).T[:, :3], some(4)[::2], some(4)[::-1], numpy.float32([[1, 2, 3]])):
        assert numpy.array_equal(session.run([x])["y"], 2 * x)


def test_other_numbers_are_converted_or_refused(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    for x in ([[1, 2, 3]], numpy.ones((2, 3)), numpy.ones((1, 3), "i4")):
        assert numpy.array_equal(session.run([x])["y"], 2 * numpy.asarray(x, "f4"))
    with pytest.raises(InputMismatchError, match="input x: wanted float32, got complex64"):
        session.run([numpy.ones((1, 3), "c8")])
    with pytest.raises(InputMismatchError, match="input x: cannot make an array of it"):
        session.run([[[1], [2, 3]]])
    strict = lab.session(NETS, DOUBLE, inputs="refuse")
    with pytest.raises(InputMismatchError, match="input x: wanted float32, got float64"):
        strict.run([numpy.ones((2, 3))])
    with pytest.raises(InputMismatchError, match="input x: wanted an array, got list"):
        strict.run([[[1.0, 2.0, 3.0]]])
    with pytest.raises(ConfigError, match="unknown inputs='maybe'"):
        lab.session(NETS, DOUBLE, inputs="maybe")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": some()}, "there is no input 'y', the inputs are x"),
        ({}, "input 'x' is not given"),
        ([], r"wanted 1 inputs \(x\), got 0"),
        ([some(), some()], r"wanted 1 inputs \(x\), got 2"),
        (some(), "wanted inputs by name or in a list, got ndarray"),
        ([some(5)], "input x: dimension 0 is 5, wanted 1 to 4"),
        ([some()[0]], r"input x: wanted 2 dimensions \[1..4, 3\], got 1 \[3\]"),
        ([some()[:, :2]], "input x: dimension 1 is 2, wanted 3"),
    ],
)
def test_a_wrong_input_is_refused(lab: Lab, given: object, message: str) -> None:
    session = lab.session(NETS, DOUBLE)
    with pytest.raises(InputMismatchError, match=message):
        session.run(given)
    x = some()
    assert numpy.array_equal(session.run([x])["y"], 2 * x), "the next call is none the worse"


@EVERY_WAY
def test_64_bit_integers_in_an_engine_that_has_none(lab: Lab, graphs: str) -> None:
    session = lab.session(NETS, WHOLE, narrow=True, cuda_graphs=graphs)
    for _ in range(4):
        found = session.run([numpy.array([1, -2, 3 << 28])])["j"]
        assert found.dtype == numpy.int64
        assert found.tolist() == [3, -6, (9 << 28) - (1 << 32)]
    for value in (1 << 31, -(1 << 31) - 1):
        with pytest.raises(InputMismatchError, match="beyond 32 bits, this engine's TensorRT"):
            session.run([numpy.array([0, value])])
    wide = lab.session(NETS, WHOLE)
    assert wide.run([numpy.array([1 << 40])])["j"].tolist() == [3 << 40]


def test_an_input_without_elements(lab: Lab) -> None:
    nets = dict(NETS)
    ranges = {"x": ((0, 3), (2, 3), (4, 3))}
    nets["double"] = type(NETS["double"])(
        NETS["double"].inputs, NETS["double"].outputs, NETS["double"].compute, [ranges]
    )
    inputs = [(*DOUBLE.inputs[0][:3], None)]
    made = type(DOUBLE)(inputs, DOUBLE.outputs, DOUBLE.segments)
    session = lab.session(nets, made)
    for _ in range(4):
        assert session.run([some(0)])["y"].shape == (0, 3)


def test_plans_of_many_shapes_give_their_memory_back(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN, shapes=2)
    for seed in range(12):
        x = some(1 + seed % 4, seed)
        assert numpy.array_equal(session.run([x])["sum"], 4 * x + x)
        if seed == 3:
            held = len(lab.cuda.device_memory)
    assert len(lab.cuda.device_memory) <= held


def test_after_close_a_call_is_told_so(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    session.run([some()])
    session.close()
    session.close()
    assert lab.cuda.leaked() == []
    for call in (session.run, session.run_async):
        with pytest.raises(DeviceError, match="the session is closed"):
            call([some()])
    with pytest.raises(DeviceError, match="the session is closed"):
        session.reset()
    assert "closed" in repr(session)


def test_a_block_closes_it(lab: Lab) -> None:
    with lab.session(NETS, DOUBLE) as session:
        session.run([some()])
    assert lab.cuda.leaked() == []


def test_a_session_that_nobody_holds_gives_everything_back(lab: Lab) -> None:
    lab.machine(NETS)
    session = Session(lab.bundle(NETS, {"forward": DOUBLE}))
    for _ in range(3):
        session.run([some()])
    del session
    gc.collect()
    assert lab.cuda.leaked() == []


def test_what_it_says_of_itself(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN)
    assert [spec.name for spec in session.inputs] == ["x"]
    assert [spec.name for spec in session.outputs] == ["sum", "mean", "same"]
    assert (session.variant, session.methods, session.device) == ("orin", ("forward",), 0)
    assert session.segments() == ("forward_0", "forward_1", "forward_2")
    assert not session.states
    assert "resolve" in session.times.seconds
    with pytest.raises(ConfigError, match="no method 'encode', it has forward"):
        session.run([some()], method="encode")


def test_several_methods_and_twins(lab: Lab) -> None:
    one = lab.session(NETS, {"forward": DOUBLE, "other": _named(FIXED, "other_0")},
                      method=("forward", "other"))  # fmt: skip
    two = lab.kept(one.twin())
    x = some()
    for session in (one, two, one):
        assert numpy.array_equal(session.run([x])["y"], 2 * x)
        assert numpy.array_equal(session.run([x], method="other")["y"], x + 1)
    engines = list(lab.trt.engines.values())
    one.close()
    assert numpy.array_equal(two.run([x])["y"], 2 * x), "a twin is closed by itself"
    assert list(lab.trt.engines.values()) == engines, "loaded once"


def test_calls_from_several_threads(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN)
    wrong: list[int] = []

    def work(number: int) -> None:
        for seed in range(10):
            x = some(1 + seed % 4, 100 * number + seed)
            if not numpy.array_equal(session.run([x])["sum"], 4 * x + x):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _named(made: object, name: str) -> object:
    segments = [(name, *rest) for _, *rest in made.segments]
    return type(made)(made.inputs, made.outputs, segments)
