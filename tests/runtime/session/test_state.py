# SPDX-License-Identifier: Apache-2.0
"""State slots, and outputs that the data sizes."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from tests.runtime.session.bundles import Made
from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import COUNT, NETS, NONZERO, some
from tests.runtime.session.trt_double import Net
from trtpack_runtime import dims
from trtpack_runtime.errors import DeviceError

ZERO = numpy.zeros(3, "f4")
LENGTH = dims.dim("cache", 0)
GROWS = {
    "append": Net(
        {"x": ("FLOAT", (1, 2)), "cache": ("FLOAT", (LENGTH, 2))},
        {"longer": ("FLOAT", (LENGTH + 1, 2)), "sum": ("FLOAT", (1, 2))},
        lambda x, cache: [numpy.concatenate([cache, x]), cache.sum(0, keepdims=True) + x],
        [{"cache": ((0, 2), (4, 2), (64, 2))}],
    )
}
GROWING = Made(
    [("x", "FLOAT", (1, 2), None)],
    [("sum", "FLOAT", (1, 2)), ("longer", "FLOAT", (None, 2))],
    [("forward_0", "append", {"x": "x", "cache": "c"}, {"longer": "d", "sum": "sum"})],
    values=("sum", "d"),
    states=[("cache", "c", "d")],
)


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_state_lasts_and_is_put_back(lab: Lab, graphs: str) -> None:
    session = lab.session(NETS, COUNT, states={"s": ZERO + 5}, cuda_graphs=graphs)
    for _ in range(2):
        found = [session.run([ZERO])["y"].tolist() for _ in range(5)]
        assert found == [[5.0 + i] * 3 for i in range(5)]
        assert session.states["s"].numpy().tolist() == [10, 10, 10]
        session.reset()
        assert session.states["s"].numpy().tolist() == [5, 5, 5]


def test_a_twin_has_state_of_its_own(lab: Lab) -> None:
    one = lab.session(NETS, COUNT, states={"s": ZERO})
    one.run([ZERO])
    two = lab.kept(one.twin())
    assert two.run([ZERO])["y"].tolist() == [0, 0, 0]
    assert one.run([ZERO])["y"].tolist() == [1, 1, 1]


def test_a_call_that_fails_leaves_the_state(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": ZERO}, cuda_graphs="off")
    session.run([ZERO])
    lab.trt.engines["count"].broken = True
    with pytest.raises(DeviceError):
        session.run([ZERO])
    lab.trt.engines["count"].broken = False
    assert session.run([ZERO])["y"].tolist() == [1, 1, 1]


def test_methods_share_state(lab: Lab) -> None:
    again = Made(
        COUNT.inputs, COUNT.outputs, [("decode_0", *COUNT.segments[0][1:])], states=COUNT.states
    )
    methods = {"prefill": COUNT, "decode": again}
    session = lab.session(NETS, methods, states={"s": ZERO}, method=("prefill", "decode"))
    assert session.run([ZERO])["y"][0] == 0
    assert session.run([ZERO], method="decode")["y"][0] == 1
    assert session.run([ZERO], method="prefill")["y"][0] == 2


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_a_method_may_only_read_state(lab: Lab, graphs: str) -> None:
    _, net, inputs, _ = COUNT.segments[0]
    peek = Made(
        COUNT.inputs,
        COUNT.outputs,
        [("peek_0", net, inputs, {"y": "y", "t": "unused"})],
        states=[("s", "s_in", "s_in")],
    )
    both = {"forward": COUNT, "peek": peek}
    session = lab.session(
        NETS, both, states={"s": ZERO + 5}, cuda_graphs=graphs, method=("forward", "peek")
    )
    for step in range(3):
        for _ in range(4):
            assert session.run([ZERO], method="peek")["y"].tolist() == [5.0 + step] * 3
        session.run([ZERO])
    assert "copy within" not in lab.cuda.journal


def test_state_may_grow(lab: Lab) -> None:
    session = lab.session(GROWS, GROWING, states={"cache": numpy.zeros((0, 2), "f4")}, shapes=3)
    for _ in range(2):
        total = numpy.zeros((1, 2), "f4")
        for i in range(9):
            x = numpy.full((1, 2), i, "f4")
            total = total + x
            found: dict[str, Any] = session.run([x])
            assert numpy.array_equal(found["sum"], total)
            assert found["longer"].shape == (i + 1, 2)
        assert session.states["cache"].numpy()[:, 0].tolist() == list(range(9))
        session.reset()


def test_state_that_is_replaced_by_an_input(lab: Lab) -> None:
    """What the last call was given: the slot takes over a value that no segment computes."""
    made = Made(
        [("x", "FLOAT", (3,), None)],
        [("y", "FLOAT", (3,)), ("before", "FLOAT", (3,))],
        [("forward_0", "count", {"x": "x", "s": "s_in"}, {"y": "y", "t": "unused"})],
        values=("y", "s_in"),
        states=[("s", "s_in", "x")],
    )
    session = lab.session(NETS, made, states={"s": ZERO})
    last = ZERO
    for i in range(1, 6):
        found = session.run([ZERO + i])
        assert numpy.array_equal(found["before"], last)
        assert numpy.array_equal(found["y"], last + i)
        last = ZERO + i


def test_stored_tensors_are_read(lab: Lab) -> None:
    made = Made(
        [("x", "FLOAT", (3,), None)],
        [("y", "FLOAT", (3,)), ("kept", "FLOAT", (3,))],
        [("forward_0", "count", {"x": "x", "s": "c"}, {"y": "y", "t": "unused"})],
        values=("y", "c"),
        constants={"c": "weight"},
    )
    session = lab.session(NETS, made, stored={"weight": ZERO + 7})
    two = lab.kept(session.twin())
    session.close()
    for _ in range(4):
        found = two.run([ZERO])
        assert (found["y"].tolist(), found["kept"].tolist()) == ([7, 7, 7], [7, 7, 7])


@pytest.mark.parametrize("old", [False, True])
def test_outputs_that_the_data_sizes(lab: Lab, old: bool) -> None:
    session = lab.session(NETS, NONZERO, narrow=old)
    for seed in range(8):
        x = some(1 + seed % 4, seed) * (some(1 + seed % 4, seed + 1) > 0.2 * (seed % 6))
        want = numpy.stack(numpy.nonzero(x))
        assert numpy.array_equal(session.run([x])["at"], want)
        assert numpy.array_equal(session.run([x], copy=False)["at"].numpy(), want)
    allocations = lab.cuda.allocations
    session.run([x])
    assert lab.cuda.allocations == allocations, "memory of such outputs is kept"


def test_no_memory_for_what_the_data_sizes(lab: Lab) -> None:
    session = lab.session(NETS, NONZERO)
    lab.cuda.free_bytes = 0
    with pytest.raises(DeviceError, match="out of memory"):
        session.run([some()])
    lab.cuda.free_bytes = 1 << 20
    assert session.run([some()])["at"].shape == (2, 6)
