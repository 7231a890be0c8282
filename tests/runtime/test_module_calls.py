# SPDX-License-Identifier: Apache-2.0
"""Calling a loaded bundle: its engines alone, outputs of the caller's, twins, threads, state."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import chains, handmade
from trtpack_runtime import load
from trtpack_runtime.engine_module import EngineModule
from trtpack_runtime.errors import ConfigError, InputMismatchError
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.module import BundleModule


@pytest.fixture
def module(tmp_path: Path) -> BundleModule:
    return load(chains.write(tmp_path / "b.tar", 2, 3))


@pytest.fixture
def counter(tmp_path: Path) -> BundleModule:
    path = chains.write(tmp_path / "s.tar", 1, 2, state=True, methods=("forward", "decode"))
    return load(path)


def some(rows: int = 2, inputs: int = 2) -> list[torch.Tensor]:
    return [torch.randn(rows, 4) for _ in range(inputs)]


# --- engines alone --------------------------------------------------------------------------------


def test_every_segment_is_a_module(module: BundleModule) -> None:
    names = [name for name, child in module.named_modules() if isinstance(child, EngineModule)]
    assert names == ["engines.forward_0", "engines.forward_1", "engines.forward_2"]
    x, y = some()
    (first,) = module.get_submodule("engines.forward_0")(x, y)
    (second,) = module.engine("forward_1")(first)
    torch.testing.assert_close(second, chains.doubled(x, y, times=2))
    engine = module.engine("forward_1")
    assert (engine.kind, engine.inputs, engine.outputs) == ("reference", ("v0",), ("v1",))
    assert list(module.state_dict()) == list(engine.parameters()) == []
    assert not engine.training


def test_an_engine_alone_says_what_it_does_not_take(module: BundleModule) -> None:
    engine = module.engine("forward_0")
    with pytest.raises(InputMismatchError, match="forward_0: wanted 2 inputs, got 1"):
        engine(some()[0])
    with pytest.raises(ConfigError, match="cannot move the segment forward_0 alone"):
        engine.to("meta")
    assert engine.to("cpu") is engine
    for duplicate in (copy.deepcopy, pickle.dumps):
        with pytest.raises(ConfigError, match="cannot be copied or pickled"):
            duplicate(engine)
    with pytest.raises(ConfigError, match="no segment 'other', there are forward_0, forward_1"):
        module.engine("other")


def test_its_engines_move_with_the_bundle(module: BundleModule) -> None:
    module.to("meta")
    engine = module.engine("forward_1")
    assert "device=meta" in repr(engine)
    assert engine(torch.empty(2, 4, device="meta"))[0].device.type == "meta"


def test_it_has_the_originals_signature(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar"), target="cpu")
    assert str(inspect.signature(module.forward)) == "(x, scale)"
    assert type(module).__name__ == "BundleModule"
    assert isinstance(module, BundleModule)


# --- gradients and modes --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_answers_never_need_a_gradient(module: BundleModule, mode: Any) -> None:
    x, y = some()
    before = torch.is_grad_enabled()
    with mode():
        inside = torch.is_grad_enabled()
        answer = module(x.requires_grad_(), torch.nn.Parameter(y))
        (alone,) = module.engine("forward_1")(x)
        assert torch.is_grad_enabled() == inside
    assert torch.is_grad_enabled() == before
    assert not answer.requires_grad
    assert not alone.requires_grad
    torch.testing.assert_close(answer, chains.doubled(x, y, times=3).detach())


def test_a_failed_call_leaves_gradients_on(module: BundleModule) -> None:
    def fails(segment: LoadedSegment) -> Callable[..., Any]:
        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            raise RuntimeError("the engine failed")

        return run

    with module.watching(fails), pytest.raises(RuntimeError, match="the engine failed"):
        module(*some())
    assert torch.is_grad_enabled()


def test_state_made_in_inference_mode_is_changed_outside_of_it(tmp_path: Path) -> None:
    path = chains.write(tmp_path / "s.tar", state=True)
    with torch.inference_mode():
        module = load(path)
        module(torch.ones(2, 4))
    module(torch.ones(2, 4))
    with torch.inference_mode():
        module(torch.ones(2, 4))
    module.reset()
    assert torch.equal(module(torch.ones(2, 4)), torch.full((2, 4), 2.0))


# --- inputs and outputs ---------------------------------------------------------------------------


def test_inputs_are_converted_where_the_load_says_so(tmp_path: Path) -> None:
    path = chains.write(tmp_path / "b.tar")
    x = torch.arange(8, dtype=torch.int16).reshape(4, 2).t()
    with pytest.raises(InputMismatchError, match="wanted float32, got int16") as caught:
        load(path)(x)
    assert 'inputs="convert"' in caught.value.hint
    assert torch.equal(load(path, inputs="convert")(x), 2.0 * x)
    module = load(path).configured(inputs="convert")
    assert module.input_policy == "convert"
    assert torch.equal(module(x), 2.0 * x)
    assert module.run("forward", [x.half()])[0].dtype == torch.float32
    with pytest.raises(InputMismatchError, match="wanted float32, got float64"):
        module(x.double())


def test_unknown_policies_are_refused(module: BundleModule) -> None:
    with pytest.raises(ConfigError, match="unknown value 'maybe' of the option inputs"):
        module.configured(inputs="maybe")  # type: ignore[arg-type]  # refused, as is tested
    with pytest.raises(ConfigError, match="unknown value 'old' of the option outputs") as caught:
        module.configured(outputs="old")  # type: ignore[arg-type]  # refused, as is tested
    assert caught.value.hint == "give 'fresh' or 'reused'"


def test_outputs_are_the_callers_own(module: BundleModule) -> None:
    given = [some() for _ in range(3)]
    answers = [module(*x) for x in given]
    for answer, x in zip(answers, given, strict=True):
        torch.testing.assert_close(answer, chains.doubled(*x, times=3))


def test_reused_outputs_stay_where_they_are_for_each_shape(module: BundleModule) -> None:
    module.configured(outputs="reused")
    assert module.output_policy == "reused"
    places = set()
    for rows in (1, 2, 1, 2, 1):
        given = some(rows)
        answer = module(*given)
        places.add((rows, answer.data_ptr()))
        torch.testing.assert_close(answer, chains.doubled(*given, times=3))
    assert len(places) == 2
    with torch.inference_mode():
        module(*some(3))
    module(*some(3))


class Direct:
    """A segment that writes where it is told; notes what it was told."""

    def __init__(self, segment: LoadedSegment, told: list[int]) -> None:
        self._segment, self._told = segment, told

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self._segment.run(inputs)

    def output_shapes(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
        return [shapes[0]]

    def run_into(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        self._told.append(outputs[0].data_ptr())
        for place, value in zip(outputs, self._segment.run(inputs), strict=True):
            place.copy_(value)


@pytest.mark.parametrize("is_direct", [True, False])
def test_given_outputs_are_written_and_answered(module: BundleModule, is_direct: bool) -> None:
    told: list[int] = []
    given, out = some(), torch.empty(2, 4)
    with module.watching(lambda s: Direct(s, told) if is_direct else s.run):
        (answer,) = module.run("forward", given, out=[out])
    assert answer is out
    assert told == ([out.data_ptr()] if is_direct else [])
    torch.testing.assert_close(out, chains.doubled(*given, times=3))


def test_engines_write_reused_outputs_themselves(module: BundleModule) -> None:
    told: list[int] = []
    module.configured(outputs="reused")
    with module.watching(lambda segment: Direct(segment, told)):
        for number in range(4):
            given = some()
            answer = module(*given)
            torch.testing.assert_close(answer, chains.doubled(*given, times=3))
            assert told == [answer.data_ptr()] * number


def test_reused_outputs_take_the_size_that_the_data_tells(tmp_path: Path) -> None:
    module = load(chains.write(tmp_path / "b.tar"), outputs="reused")

    def grows(segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
        sizes = iter((2, 3, 3, 1))
        return lambda inputs: [torch.full((next(sizes), 4), 7.0)]

    with module.watching(grows):
        answers = [module(*some(inputs=1)) for _ in range(4)]
    assert [len(answer) for answer in answers] == [2, 3, 3, 1]
    assert answers[1] is answers[2]


def test_outputs_given_in_turns_are_written(module: BundleModule) -> None:
    told: list[int] = []
    turns = [torch.empty(2, 4), torch.empty(2, 4), torch.empty(4, 2).t()]
    with module.watching(lambda segment: Direct(segment, told)):
        for number in range(9):
            given, out = some(), turns[number % 3]
            module.run("forward", given, out=[out])
            torch.testing.assert_close(out, chains.doubled(*given, times=3))
            with pytest.raises(InputMismatchError, match="in the memory of an input"):
                module.run("forward", [given[0], out], out=[out])
    assert told == [turns[0].data_ptr(), turns[1].data_ptr()] * 3


def test_given_outputs_may_be_views(module: BundleModule) -> None:
    told: list[int] = []
    given, room = some(), torch.zeros(4, 4)
    out = room.t()[:2]
    with module.watching(lambda segment: Direct(segment, told)):
        module.run("forward", given, out=[out])
    assert told == []
    torch.testing.assert_close(room.t()[:2], chains.doubled(*given, times=3))
    assert not room.t()[2:].any()


def test_given_outputs_may_share_a_buffer_with_inputs(module: BundleModule) -> None:
    room = torch.zeros(8, 4)
    x, y, out = room[:2].normal_(), room[2:4].normal_(), room[4:6]
    module.run("forward", [x, y], out=[out])
    torch.testing.assert_close(out, chains.doubled(x, y, times=3))
    for begin in (1, 3):
        with pytest.raises(InputMismatchError, match="in the memory of an input"):
            module.run("forward", [x, y], out=[room[begin : begin + 2]])


def test_given_outputs_that_do_not_fit_are_refused(module: BundleModule) -> None:
    x, y = some()
    for out, said in (
        ([], "wanted 1 outputs .y., got 0"),
        ([torch.empty(3, 4)], r"output y: wanted the shape \[2, 4\], got \[3, 4\]"),
        ([torch.empty(2, 4).half()], "output y: wanted torch.float32 on cpu, got torch.float16"),
        ([torch.empty(2, 4, device="meta")], "on cpu, got torch.float32 on meta"),
        ([x], "output y: it lies in the memory of an input or of another output"),
        ([None], "output y: wanted a dense tensor, got NoneType"),
        ([torch.empty(2, 4).to_sparse()], "wanted a dense tensor, got torch.sparse_coo"),
        ([torch.empty(4).expand(2, 4)], "output y: elements of it share their memory"),
    ):
        with pytest.raises(InputMismatchError, match=said):
            module.run("forward", [x, y], out=out)


def test_outputs_sized_by_data_are_compared_when_they_are_known(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar"), target="cpu")
    x, scale = torch.ones(2, 4), torch.ones(1)
    out = [torch.empty(2, 3), torch.empty(2, dtype=torch.int64)]
    assert module.run("forward", [x, scale], out=out)[1] is out[1]
    torch.testing.assert_close(out[0], module(x, scale)["logits"])


# --- state ----------------------------------------------------------------------------------------


def test_two_methods_share_the_state(counter: BundleModule) -> None:
    x, want = torch.ones(2, 4), torch.zeros(2, 4)
    for name in ("forward", "decode", "decode", "forward"):
        want = chains.doubled(x, want, times=2)
        assert torch.equal(counter.method(name)(x), want)
        assert torch.equal(counter.states["total"], want)
    counter.reset()
    assert torch.equal(counter.decode(x), torch.full((2, 4), 4.0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.ones(4), r"state total: wanted the shape \[2, 4\], got \[4\]"),
        (1.0, "state total: wanted a Tensor, got float"),
    ],
)
def test_state_is_put_to_a_tensor_of_its_shape_only(
    counter: BundleModule, wrong: Any, said: str
) -> None:
    before = counter(torch.ones(2, 4))
    with pytest.raises(InputMismatchError, match=said):
        counter.reset({"total": wrong})
    assert torch.equal(counter.states["total"], before), "what is refused changes nothing"


def test_an_answer_is_no_part_of_the_state(counter: BundleModule) -> None:
    x = torch.ones(2, 4)
    first = counter(x)
    kept = first.clone()
    counter(x)
    assert torch.equal(first, kept)
    first.zero_()
    assert not torch.equal(counter.states["total"], first)


@pytest.mark.parametrize("assign", [False, True])
def test_loaded_state_goes_on_from_there(tmp_path: Path, assign: bool) -> None:
    path = handmade.write(tmp_path / "b.tar")
    module, x, scale = load(path, target="cpu"), torch.ones(2, 4), torch.ones(1)
    for _ in range(3):
        module(x, scale)
    saved = {name: value.clone() for name, value in module.state_dict().items()}
    for other in (load(path, target="cpu"), module.twin()):
        other.load_state_dict(saved, assign=assign)
        other(x, scale)
        assert other.states["calls"] == other.state_dict()["calls"] == 4
    assert module.states["calls"] == saved["calls"] == 3


def test_instances_do_not_share_state(counter: BundleModule) -> None:
    x = torch.ones(2, 4)
    counter(x)
    twin, other = counter.twin(), load(counter.bundle.path)
    for module in (twin, other):
        assert not module.states["total"].any()
        module(x)
    counter(x)
    assert torch.equal(twin.states["total"], other.states["total"])
    assert not torch.equal(twin.states["total"], counter.states["total"])


def test_twins_share_engines_and_weights(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar"), target="orin")
    twin = module.twin()
    assert type(twin) is type(module)
    for mine, its in zip(module.segments(), twin.segments(), strict=True):
        assert mine.run is its.run
    for name, weight in module.named_parameters():
        assert twin.get_parameter(name).data_ptr() == weight.data_ptr()
    assert twin.get_buffer("calls").data_ptr() != module.get_buffer("calls").data_ptr()
    assert (twin.device, twin.variant, twin.degraded) == (module.device, "orin", module.degraded)
    x, scale = torch.ones(2, 4), torch.ones(1)
    torch.testing.assert_close(twin(x, scale)["logits"], module(x, scale)["logits"])
    twin.configured(outputs="reused")
    assert module.output_policy == "fresh"
    assert twin.smoke().passed


def test_two_loads_map_the_same_file(tmp_path: Path) -> None:
    path = handmade.write(tmp_path / "b.tar")
    weights = [load(path, target="cpu").get_parameter("fc.weight") for _ in range(2)]
    inodes = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if any(low <= weight.data_ptr() < high for weight in weights):
            inodes.add(line.split()[4])
    assert inodes == {str(path.stat().st_ino)}


def test_a_module_that_nobody_keeps_goes_at_once(tmp_path: Path) -> None:
    module = load(chains.write(tmp_path / "s.tar", state=True))
    module(torch.ones(2, 4))
    gone = weakref.ref(module)
    gc.disable()
    try:
        del module
        assert gone() is None
    finally:
        gc.enable()


# --- threads --------------------------------------------------------------------------------------


class Meeting:
    """Lets every segment wait until all threads are in one."""

    def __init__(self, threads: int) -> None:
        self._barrier = threading.Barrier(threads)

    def watch(self, segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            self._barrier.wait(timeout=20)
            return segment.run(inputs)

        return run


def test_threads_call_a_stateless_module_at_once(module: BundleModule) -> None:
    given = [some(rows) for rows in (1, 2, 3, 4)]
    with module.watching(Meeting(4).watch), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: module(*x), given))
    for answer, x in zip(answers, given, strict=True):
        torch.testing.assert_close(answer, chains.doubled(*x, times=3))


def test_threads_take_turns_where_there_is_state(counter: BundleModule) -> None:
    inside, most = [0], [0]

    def watch(segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            answer = segment.run(inputs)
            inside[0] -= 1
            return answer

        return run

    x, want = torch.full((2, 4), 2.0**-12), torch.zeros(2, 4)
    for _ in range(8):
        want = chains.doubled(x, want, times=2)
    with counter.watching(watch), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: counter(x), range(8)))
    assert most == [1]
    assert torch.equal(counter.states["total"], want)
