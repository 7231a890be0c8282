# SPDX-License-Identifier: Apache-2.0
"""The shortest way through a call: taken for the very same tensors, and for nothing else."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.runtime.gpu_double import Gpu, gpu_of
from tests.runtime.replays import graphs
from trtpack_runtime.engines._alike import LESSONS
from trtpack_runtime.engines._streams import Address
from trtpack_runtime.repeat import Repeat

T = torch.Tensor


def copies(to: Address, source: Address, nbytes: ctypes.c_size_t, stream: int) -> int:
    """The driver's copy."""
    ctypes.memmove(to, source, nbytes.value)
    return 0


def refuses(to: Address, source: Address, nbytes: ctypes.c_size_t, stream: int) -> int:
    """A driver that does not copy."""
    return 1


@pytest.fixture(params=[None, copies, refuses], ids=["no binding", "copies", "refuses"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; the caller is on the default stream."""
    made = gpu_of(monkeypatch)
    made.copies = request.param
    return made


class Caller:
    """Calls a runner as a method does: by the shortest way where there is one."""

    def __init__(self, gpu: Gpu) -> None:
        self.run = graphs(gpu)
        self.repeat = Repeat(self.run)

    def __call__(self, x: T, out: T | None = None) -> bool:
        """Calls, holds the answer to be right; whether it took the shortest way."""
        given = None if out is None else [out]
        answer = self.repeat([x], given)
        short = answer is not None
        if answer is None:
            answer = self.run([x], given)
            self.repeat.note([x], given)
        assert torch.equal(answer[0], x * 2)
        assert out is None or answer[0] is out
        return short


@pytest.fixture
def call(gpu: Gpu) -> Caller:
    """A caller whose engine makes graphs."""
    return Caller(gpu)


def test_the_third_call_is_short_and_sees_new_values(call: Caller) -> None:
    x = torch.rand(2, 3)
    assert [call(x), call(x), call(x)] == [False, False, True]
    x.uniform_()
    assert call(x)


def test_answers_are_the_callers_own(call: Caller) -> None:
    x = torch.rand(2, 3)
    for _ in range(3):
        call(x)
    first, second = call.repeat([x], None), call.repeat([x], None)
    assert first is not None
    assert second is not None
    first[0].zero_()
    assert torch.equal(second[0], x * 2)


def test_given_outputs(call: Caller) -> None:
    x, out = torch.rand(2, 3), torch.empty(2, 3)
    assert [call(x, out) for _ in range(4)] == [False, False, True, True]
    assert not call(x, torch.empty(2, 3)), "the outputs are elsewhere"


def test_outputs_are_given_by_turns_to_more_kinds_of_tensors_than_are_learnt(call: Caller) -> None:
    for number in range(2 * LESSONS):
        rows = 1 + number % 4
        x, out = torch.rand(rows, 3), torch.empty(rows, 3)
        for _ in range(2):
            call(x)
            call(x, out)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.clone(),
        lambda x: x[:1],
        lambda x: x.view(3, 2).t(),
        lambda x: torch.rand(4, 3),
        lambda x: x.detach().requires_grad_(),
    ],
    ids=["elsewhere", "fewer rows at the same place", "other strides", "shape", "grad"],
)
def test_another_tensor_goes_the_long_way(call: Caller, other: Callable[[T], T]) -> None:
    x = torch.rand(2, 3)
    for _ in range(3):
        call(x)
    with torch.no_grad():
        assert not call(other(x))


def test_what_is_no_tensor_goes_the_long_way(call: Caller) -> None:
    x = torch.rand(2, 3)
    for _ in range(3):
        call(x)
    assert call.repeat(["x"], None) is None
    assert call.repeat([x, x], None) is None


def test_inputs_that_move_are_copied(call: Caller) -> None:
    """Once the graph is known to have memory of its own for them."""
    assert [call(torch.rand(2, 3)) for _ in range(6)][-3:] == [True] * 3
    kept = torch.rand(2, 3)
    before = kept.clone()
    call(kept)
    assert torch.equal(kept, before)


def test_outputs_that_move_are_copied(call: Caller) -> None:
    x = torch.rand(2, 3)
    kept = [torch.empty(2, 3) for _ in range(6)]
    assert [call(x, out) for out in kept][-2:] == [True] * 2


def test_the_driver_copies_each_that_moves_on_the_callers_stream(call: Caller, gpu: Gpu) -> None:
    told = []

    def note(to: Address, source: Address, nbytes: ctypes.c_size_t, stream: int) -> int:
        told.append((source, nbytes.value, stream))
        return copies(to, source, nbytes, stream)

    gpu.copies = note
    gpu.caller_on("another stream")
    for _ in range(5):
        x = torch.rand(2, 3)
        call(x)
    assert told[-2] == (x.data_ptr(), 24, gpu.current(0))
    assert [nbytes for _, nbytes, _ in told[-2:]] == [24, 24], "the input, then the answer"


def test_an_input_that_is_not_contiguous_goes_the_long_way(call: Caller) -> None:
    assert [call(torch.rand(3, 2).t()) for _ in range(5)] == [False] * 5


def test_inputs_that_need_a_gradient_are_no_part_of_one(call: Caller) -> None:
    kept = [torch.rand(2, 3).requires_grad_() for _ in range(6)]
    with torch.no_grad():
        ways = [call(x) for x in kept]
    assert ways[-1], "the last was copied into the graph's own memory"
    answer = call.run([kept[0]])
    assert not answer[0].requires_grad


def test_another_stream_and_another_thread(call: Caller, gpu: Gpu) -> None:
    x = torch.rand(2, 3)
    for _ in range(3):
        call(x)
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(call, x).result()
    gpu.caller_on("another stream")
    assert call.repeat([x], None) is None


def test_a_graph_that_is_gone_is_not_kept(call: Caller) -> None:
    x = torch.rand(2, 3)
    for _ in range(3):
        call(x)
    assert call.repeat._known is not None
    graph = call.repeat._known.graph
    lane = call.run._lanes.all[0]
    lane.graphs.let_go(lane, call.run.streams)
    assert graph() is None
    assert call.repeat([x], None) is None
    assert not call(x)
