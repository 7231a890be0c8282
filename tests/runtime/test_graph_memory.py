# SPDX-License-Identifier: Apache-2.0
"""Where a graph reads and writes: the caller's memory where that stays, its own where it moves."""

from __future__ import annotations

import pytest
import torch

from tests.runtime.gpu_double import Gpu, gpu_of
from tests.runtime.replays import graphs, right
from tests.runtime.running import Engine, Trt, runner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.errors import InputMismatchError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; the caller is on the default stream."""
    return gpu_of(monkeypatch)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of TensorRT 8, which has no 64-bit integers."""
    monkeypatch.setattr(Engine, "dtype", "INT32")


def sums(gpu: Gpu) -> GraphRunner:
    """An engine of two inputs."""
    return runner(Trt(gpu, "abz"), kind=GraphRunner)


def places(run: GraphRunner) -> list[tuple[int | None, ...]]:
    """Where each graph reads and writes the caller's memory, None where it has its own."""
    return [graph.at for graph in run._lanes.all[0].graphs.by_key.values()]


def test_a_buffer_that_stays_is_read_where_it_is(gpu: Gpu) -> None:
    run, stays = sums(gpu), torch.zeros(2, 3)
    kept = [torch.rand(2, 3) for _ in range(4)]
    for i, moves in enumerate(kept):
        stays.fill_(i)
        (z,) = run([stays, moves])
        assert torch.equal(z, 2 * (stays + moves))
    assert places(run) == [(stays.data_ptr(), None)]
    assert gpu.told() == ["runs", "runs", "captured", *["replays"] * 3]


def test_a_buffer_that_moves_after_all_is_copied_from_then_on(gpu: Gpu) -> None:
    run, first, second = sums(gpu), torch.rand(2, 3), torch.rand(2, 3)
    before = first.clone()
    for a in (first, first, first, second, first, torch.rand(2, 3)):
        (z,) = run([a, first])
        assert torch.equal(z, 2 * (a + first))
    assert torch.equal(first, before), "the caller's memory is not written to"
    assert places(run) == [(None, first.data_ptr())]
    assert gpu.told().count("captured") == 2


def test_a_graph_captured_in_inference_mode_serves_outside_of_it(gpu: Gpu) -> None:
    run = graphs(gpu)
    with torch.inference_mode():
        kept = [right(run) for _ in range(3)]
    x = torch.rand(2, 3, requires_grad=True)
    for _ in range(2):
        (y,) = run([x])
        assert torch.equal(y, x * 2)
        assert not y.requires_grad
    assert gpu.told()[-1] == "replays"
    assert len(kept) == 3


def test_outputs_that_stay_are_written_where_they_are(gpu: Gpu) -> None:
    run, x, z = graphs(gpu), torch.rand(2, 3), torch.zeros(2, 3)
    for _ in range(3):
        x.mul_(2)
        assert run.run_into([x], [z]) is None
        assert torch.equal(z, x * 2)
    assert places(run) == [(x.data_ptr(), z.data_ptr())]
    other = torch.zeros(2, 3)
    run.run_into([x], [other])
    assert torch.equal(other, x * 2)
    assert places(run) == [(x.data_ptr(), None)]


def test_outputs_of_the_caller_and_new_ones_do_not_disturb_each_other(gpu: Gpu) -> None:
    run, z = graphs(gpu), torch.zeros(2, 3)
    for _ in range(4):
        right(run)
        x = torch.rand(2, 3)
        run.run_into([x], [z])
        assert torch.equal(z, x * 2)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_outputs_that_are_none_are_refused(gpu: Gpu, calls: int) -> None:
    run, x = graphs(gpu), torch.rand(2, 3)
    for _ in range(calls):
        run.run_into([x], [torch.zeros(2, 3)])
    for wrong in (torch.zeros(3, 3), torch.zeros(2, 3).half(), torch.zeros(3, 2).t()):
        with pytest.raises(InputMismatchError, match=r"output y: wanted FLOAT \[2, 3\] on cpu"):
            run.run_into([x], [wrong])


@pytest.mark.usefixtures("narrow")
def test_64_bit_outputs_of_the_caller(gpu: Gpu) -> None:
    run, z = graphs(gpu, declared="INT64"), torch.zeros(1, 3, dtype=torch.int64)
    for start in (0, -7, 5):
        x = torch.arange(start, start + 3)[None]
        run.run_into([x], [z])
        assert torch.equal(z, x * 2)
    assert gpu.told()[-1] == "replays"
