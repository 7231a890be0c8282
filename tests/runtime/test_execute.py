# SPDX-License-Identifier: Apache-2.0
"""Running an engine, against a double of TensorRT's runtime.

Addresses, shapes, types and the order of streams are proved here; that a real engine computes the
right thing is proved on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.runtime.gpu_double import CPU, Gpu, gpu_of
from tests.runtime.running import Engine, Trt, runner
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._load import deserialized
from trtpack_runtime.errors import BundleError, DeviceError, InputMismatchError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; the caller is on the default stream."""
    return gpu_of(monkeypatch)


def test_numbers_of_several_shapes(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    for batch in (1, 4, 2):
        x = torch.rand(batch, 3)
        (y,) = run([x])
        assert torch.equal(y, x * 2)


def test_an_input_that_is_not_contiguous_is_copied(gpu: Gpu) -> None:
    x = torch.rand(3, 2).t()
    (y,) = runner(Trt(gpu))([x])
    assert torch.equal(y, x * 2)


def test_the_default_stream_is_waited_for_and_waits(gpu: Gpu) -> None:
    runner(Trt(gpu))([torch.rand(1, 3)])
    assert gpu.journal == ["0: 1", "runs", "the caller waits for the engine"], (
        "CUDA has the engine's stream wait for the default one"
    )


def test_a_stream_of_the_callers_is_used_as_it_is(gpu: Gpu) -> None:
    gpu.caller_on("the caller's own")
    run = runner(Trt(gpu))
    run([torch.rand(1, 3)])
    run([torch.rand(1, 3)])
    assert gpu.journal == ["0: 1", "runs", "runs"], "equal shapes are told once"


def test_a_call_on_another_stream_waits_for_the_last_one(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    for name in ("one", "two", "two", "one"):
        gpu.caller_on(name)
        run([torch.rand(1, 3)])
    assert gpu.journal == [
        *("0: 1", "runs", "two waits for one", "runs"),
        *("runs", "one waits for two", "runs"),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.rand(1, 3).half(), "input x: wanted FLOAT on cpu, got HALF on cpu"),
        (torch.rand(5, 3), r"takes shapes from \[1, 3\] to \[4, 3\], got \[5, 3\]"),
        (torch.rand(5, 3), r"got \[5, 3\]; dimension 0 is 5, it may be 1 to 4$"),
        (torch.rand(3), r"got \[3\]; it has 1 dimensions, not 2$"),
    ],
)
def test_a_wrong_input_is_refused(gpu: Gpu, value: torch.Tensor, message: str) -> None:
    with pytest.raises(InputMismatchError, match=message):
        runner(Trt(gpu))([value])
    assert "runs" not in gpu.journal


def test_another_device_is_made_the_current_one_meanwhile(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = [-1]

    @contextmanager
    def on() -> Iterator[None]:
        current.append(-1)
        yield
        current.pop()

    monkeypatch.setattr(gpu, "here", lambda: current[-1])
    monkeypatch.setattr(gpu, "on", on)
    trt = Trt(gpu)
    run = runner(trt)
    seen: list[int] = []
    trt.engine.during_a_run = lambda: seen.append(len(current))
    for device in (-1, 3):
        current[:] = [device]
        x = torch.rand(2, 3)
        (y,) = run([x])
        assert torch.equal(y, x * 2)
        assert current == [device]
    assert seen == [1, 2]


def test_a_damaged_plan_is_told(gpu: Gpu) -> None:
    with pytest.raises(BundleError, match=r"no plan, a damaged one, .*: magic tag does not match"):
        runner(Trt(gpu), b"none")


def test_a_plan_of_another_segment_is_told(gpu: Gpu) -> None:
    with pytest.raises(BundleError, match="another segment") as refusal:
        EngineRunner(*deserialized(Trt(gpu), memoryview(b"ptrt")), ["x"], ["z"], CPU)
    assert (refusal.value.wants, refusal.value.has) == (["x", "z"], ["x", "y"])


def test_a_run_that_fails_is_told_with_tensorrts_words(gpu: Gpu) -> None:
    trt = Trt(gpu)
    run = runner(trt)
    trt.engine.broken = True
    with pytest.raises(DeviceError, match="cannot run the engine: out of everything"):
        run([torch.rand(1, 3)])


def test_no_room_for_a_context_is_told(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "create_execution_context", lambda self: None)
    with pytest.raises(DeviceError, match="cannot make room"):
        runner(Trt(gpu))


# several optimisation profiles


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide profile first, a narrow one within it second."""
    ranges = (((1, 3), (8, 3), (32, 3)), ((1, 3), (1, 3), (2, 3)))
    monkeypatch.setattr(Engine, "profiles", ranges)


@pytest.mark.usefixtures("profiles")
def test_the_narrowest_profile_that_holds_the_shapes_runs(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    for batch in (2, 8, 2, 1):
        x = torch.rand(batch, 3)
        (y,) = run([x])
        assert torch.equal(y, x * 2)
    told = [note for note in gpu.journal if note[0] in "01p"]
    assert told == ["profile 1", "1: 2", "0: 8", "1: 1"], "a context knows its shapes still"
    assert len(run.contexts) == 2
    assert run.context.active_optimization_profile == 0


@pytest.mark.usefixtures("profiles")
def test_shapes_in_no_profile_are_told_with_every_range(gpu: Gpu) -> None:
    message = r"from \[1, 3\] to \[2, 3\] or from \[1, 3\] to \[32, 3\], got \[33, 3\]"
    with pytest.raises(InputMismatchError, match=message):
        runner(Trt(gpu))([torch.rand(33, 3)])


@pytest.mark.usefixtures("profiles")
def test_no_room_for_another_profile_is_told(gpu: Gpu) -> None:
    trt = Trt(gpu)
    run = runner(trt)
    trt.engine.has_room = False
    with pytest.raises(DeviceError, match="cannot make room"):
        run([torch.rand(1, 3)])


# 64-bit integers in an engine that has none


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of TensorRT 8."""
    monkeypatch.setattr(Engine, "dtype", "INT32")


@pytest.mark.usefixtures("narrow")
def test_64_bit_integers_come_and_go_as_themselves(gpu: Gpu) -> None:
    x = torch.tensor([[1, -2, 3 << 28]])
    (y,) = runner(Trt(gpu), declared="INT64")([x])
    assert torch.equal(y, x * 2)
    assert y.dtype == torch.int64


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("value", [1 << 31, -(1 << 31) - 1, 1 << 40])
def test_integers_beyond_32_bits_are_refused(gpu: Gpu, value: int) -> None:
    run = runner(Trt(gpu), declared="INT64")
    with pytest.raises(InputMismatchError, match="input x: has integers beyond 32 bits"):
        run([torch.tensor([[1, value, 3]])])
    (y,) = run([torch.tensor([[1, (1 << 30) - 1, -(1 << 30)]])])
    assert y.tolist() == [[2, (1 << 31) - 2, -(1 << 31)]]


@pytest.mark.usefixtures("narrow")
def test_an_engine_of_32_bit_integers_takes_those_alone(gpu: Gpu) -> None:
    run = runner(Trt(gpu), declared="INT32")
    with pytest.raises(InputMismatchError, match="wanted INT32 on cpu, got INT64 on cpu"):
        run([torch.tensor([[1, 2, 3]])])


@pytest.mark.usefixtures("narrow")
def test_a_call_under_capture_does_not_wait_for_the_gpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner(Trt(gpu), declared="INT64")
    run([torch.tensor([[1, 2, 3]])])
    gpu.caller_on("capturing")
    gpu.under_capture = True
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: pytest.fail("waited"))
    del gpu.journal[:]
    run([torch.tensor([[1, 2, 1 << 40]])])
    assert gpu.journal == ["runs"], "no waiting for another stream either"


# memory of the caller's


def test_results_in_the_callers_memory(gpu: Gpu) -> None:
    run, y = runner(Trt(gpu)), torch.zeros(2, 3)
    for _ in range(4):
        x = torch.rand(2, 3)
        assert run.run_into([x], [y]) is None
        assert torch.equal(y, x * 2)
    (fresh,) = run([x])
    assert torch.equal(fresh, y)
    assert fresh.data_ptr() != y.data_ptr()


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([torch.zeros(2, 4)], r"output y: wanted FLOAT \[2, 3\] on cpu, got FLOAT \[2, 4\] on cpu"),
        ([torch.zeros(2, 3).double()], r"got DOUBLE \[2, 3\]"),
        ([torch.zeros(2, 3, dtype=torch.uint16)], r"got uint16 \[2, 3\]"),
        ([torch.zeros(3, 2).t()], r"on cpu, not contiguous$"),
        ([], "the engine has 1 outputs, got 0"),
    ],
)
def test_outputs_that_are_none_are_refused(
    gpu: Gpu, outputs: list[torch.Tensor], message: str, calls: int
) -> None:
    run, x = runner(Trt(gpu)), torch.rand(2, 3)
    for _ in range(calls):
        run.run_into([x], [torch.zeros(2, 3)])
    gpu.told()
    with pytest.raises(InputMismatchError, match=message):
        run.run_into([x], outputs)
    assert gpu.told() == []


@pytest.mark.usefixtures("narrow")
def test_64_bit_results_in_the_callers_memory(gpu: Gpu) -> None:
    run, y = runner(Trt(gpu), declared="INT64"), torch.zeros(1, 3, dtype=torch.int64)
    run.run_into([torch.tensor([[1, -2, 3]])], [y])
    assert y.tolist() == [[2, -4, 6]]
    assert not run.capturable, "what is checked cannot be captured"


def test_the_outputs_shapes_without_a_run(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    assert run.output_shapes([[4, 3]]) == [(4, 3)]
    assert gpu.told() == []
    with pytest.raises(InputMismatchError, match="dimension 0 is 5, it may be 1 to 4"):
        run.output_shapes([(5, 3)])


def test_the_same_tensor_twice(gpu: Gpu) -> None:
    run, a, b = runner(Trt(gpu, "abz")), torch.rand(2, 3), torch.rand(2, 3)
    for given in ([a, a], [a, b], [b, b], [b, a], [a, a]):
        (z,) = run(given)
        assert torch.equal(z, 2 * (given[0] + given[1]))


def test_tensors_of_inference_mode_and_of_none(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    for _ in range(4):
        for inference in (True, False):
            with torch.inference_mode(inference):
                x = torch.rand(2, 3)
                (y,) = run([x])
                assert torch.equal(y, x * 2)
    x = torch.rand(3, 2).t()  # all else is alike
    (y,) = run([x])
    assert torch.equal(y, x * 2)


def test_too_few_inputs_are_refused(gpu: Gpu) -> None:
    run = runner(Trt(gpu, "abz"))
    for _ in range(2):
        with pytest.raises(InputMismatchError, match="takes 2 inputs, got 1"):
            run([torch.rand(2, 3)])
        run([torch.rand(2, 3), torch.rand(2, 3)])


# contexts that graphs were captured from


def test_a_context_the_caller_captured_is_told_no_other_shapes(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    run([torch.rand(2, 3)])
    gpu.caller_on("capturing")
    gpu.under_capture = True
    run([torch.rand(2, 3)])
    run([torch.rand(2, 3)])
    assert len(run.contexts) == 1
    gpu.under_capture = False
    for batch in (2, 4):
        x = torch.rand(batch, 3)
        (y,) = run([x])
        assert torch.equal(y, x * 2)
    first, second = run.contexts
    assert (first._shape, second._shape) == ((2, 3), (4, 3))


def test_a_context_is_free_when_nobody_keeps_it(gpu: Gpu) -> None:
    run = runner(Trt(gpu))
    lane, keeper = run.lane(), Keeper()
    gpu.caller_on("capturing")
    with run.on(lane, keeper):
        run([torch.rand(2, 3)])
        gpu.under_capture = True
        run([torch.rand(2, 3)])
        gpu.under_capture = False
    del keeper
    with run.on(lane):
        run([torch.rand(4, 3)])
    assert len(lane.contexts) == 1


class Keeper:
    """Whatever keeps a graph."""
