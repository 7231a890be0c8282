# SPDX-License-Identifier: Apache-2.0
"""Calls as CUDA graphs: when there is one, what it reads, and when there cannot be one."""

from __future__ import annotations

import warnings

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import Error
from tests.runtime.session.nets import CHAIN, COUNT, DOUBLE, FIXED, NETS, NONZERO, some
from tests.runtime.session.producers import OnGpu
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.session import Session


def did(lab: Lab) -> list[str]:
    """What the engines did since this was asked last: "double", or "graph"."""
    notes = [note for note in lab.cuda.journal if note in (*NETS, "graph")]
    lab.cuda.journal.clear()
    return notes


def right(session: Session, batch: int = 2, seed: int = 0) -> None:
    x = some(batch, seed)
    assert numpy.array_equal(session.run([x])["y"], 2 * x)


def test_run_then_captured_then_replayed(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    seen = []
    for seed in range(4):
        right(session, seed=seed)
        seen.append(did(lab))
    assert seen == [["double"], ["double", "double"], ["graph"], ["graph"]]


def test_a_whole_program_is_one_graph(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN)
    for seed in range(4):
        x = some(3, seed)
        assert numpy.array_equal(session.run([x])["sum"], 4 * x + x)
    assert did(lab)[-1:] == ["graph"]


def test_several_shapes_have_a_graph_each_and_contexts_of_their_own(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    for seed in range(3):
        for batch in (1, 2, 4):
            right(session, batch, seed)
    did(lab)
    for seed in range(3):
        for batch in (4, 1, 2):
            right(session, batch, seed)
    assert did(lab) == ["graph"] * 9
    assert lab.trt.engines["double"].contexts == 4, "one for each graph, one for first calls"


def test_an_engine_of_fixed_shapes_needs_one_context(lab: Lab) -> None:
    session = lab.session(NETS, FIXED)
    for seed in range(4):
        assert numpy.array_equal(session.run([some(2, seed)])["y"], some(2, seed) + 1)
    assert did(lab)[-1] == "graph"
    assert lab.trt.engines["fixed"].contexts == 1


def test_inputs_on_the_gpu_that_stay_are_read_where_they_are(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    x = OnGpu(lab.cuda, some())
    for seed in range(5):
        x.write(some(2, seed))
        assert numpy.array_equal(session.run([x])["y"], 2 * some(2, seed))
    assert "copy within" not in lab.cuda.journal
    assert did(lab)[-2:] == ["graph", "graph"]
    x.free()


def test_inputs_on_the_gpu_that_move_are_copied_once(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    places = [OnGpu(lab.cuda, some(2, seed)) for seed in range(6)]
    for seed, x in enumerate(places):
        lab.cuda.journal.clear()
        assert numpy.array_equal(session.run([x])["y"], 2 * some(2, seed))
        if seed > 1:
            assert lab.cuda.journal[:2] == ["copy within", "graph"]
    for x in places:
        x.free()


def test_inputs_that_come_and_go_are_not_captured_for_ever(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    for seed in range(120):
        x = OnGpu(lab.cuda, some(2, seed))
        for _ in range(2):
            assert numpy.array_equal(session.run([x])["y"], 2 * some(2, seed))
        x.free()
    lab.cuda.journal.clear()
    x = OnGpu(lab.cuda, some())
    for _ in range(3):
        session.run([x])
    assert did(lab) == ["graph"] * 3
    x.free()


def test_state_takes_turns_under_graphs(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": numpy.zeros(3, "f4")})
    found = [session.run([numpy.full(3, 10, "f4")])["y"][0] for _ in range(9)]
    assert found == [10 + i for i in range(9)]
    assert did(lab)[-3:] == ["graph"] * 3
    session.reset()
    assert session.run([numpy.zeros(3, "f4")])["y"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "name", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"]
)
@pytest.mark.parametrize("graphs", ["auto", "on"])
def test_where_there_is_no_graph_it_runs_without(lab: Lab, name: str, graphs: str) -> None:
    session = lab.session(NETS, DOUBLE, cuda_graphs=graphs)
    lab.cuda.fails[name] = Error.cudaErrorStreamCaptureUnsupported
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for seed in range(4):
            right(session, seed=seed)
    assert "graph" not in did(lab)
    words = [str(warning.message) for warning in told]
    assert len(words) == (graphs == "on")
    assert all("without a CUDA graph: " in text and name in text for text in words)


def test_an_engine_that_cannot_be_captured_runs_without(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN, cuda_graphs="on")
    lab.trt.engines["next"].refuses_capture = True
    x = some(3)
    assert numpy.array_equal(session.run([x])["sum"], 5 * x)
    with pytest.warns(UserWarning, match="without a CUDA graph: .*out of everything"):
        session.run([x])
    for seed in range(3):
        x = some(3, seed)
        assert numpy.array_equal(session.run([x])["sum"], 4 * x + x)
    assert "graph" not in did(lab)


def test_what_the_data_sizes_is_in_no_graph(lab: Lab) -> None:
    session = lab.session(NETS, NONZERO, cuda_graphs="on")
    with pytest.warns(UserWarning, match="sizes within it depend on data"):
        session.run([some()])
    for seed in range(3):
        x = some(2, seed) * (some(2, seed + 1) > 0.5)
        assert numpy.array_equal(session.run([x])["at"], numpy.stack(numpy.nonzero(x)))


def test_off_is_off(lab: Lab) -> None:
    for wanted in ("off", False):
        session = lab.session(NETS, DOUBLE, cuda_graphs=wanted)
        for seed in range(4):
            right(session, seed=seed)
        assert did(lab) == ["double"] * 4
        session.close()
    with pytest.raises(ConfigError, match="unknown cuda_graphs='sometimes'"):
        lab.session(NETS, DOUBLE, cuda_graphs="sometimes")
