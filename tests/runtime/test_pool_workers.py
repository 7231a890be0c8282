# SPDX-License-Identifier: Apache-2.0
"""A worker on a GPU: waits for its inputs, answers what is computed, hands memory over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade
from trtpack_runtime import Pool, load
from trtpack_runtime.pool_workers import Arrival, ModuleStaff, ModuleWorker

SECONDS = 20.0


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU, and notes for which streams it is kept."""

    is_cuda = True
    told: list[str]

    def record_stream(self, stream: Any) -> None:
        self.told.append(f"keep for {stream.name}")


class Stream:
    def __init__(self, told: list[str], name: str) -> None:
        self.told, self.name = told, name

    def wait_event(self, event: str) -> None:
        self.told.append(f"{self.name} waits for {event}")

    def record_event(self) -> str:
        return f"what {self.name} does"


class Event:
    def __init__(self, told: list[str], blocking: bool) -> None:
        assert blocking
        self.told = told

    def record(self, stream: Stream) -> None:
        self.told.append(f"record {stream.name}")

    def synchronize(self) -> None:
        self.told.append("wait")


class Module:
    """Stands for a module on a GPU, whose call ``answer`` makes."""

    device = torch.device("cuda", 0)

    def __init__(self, told: list[str], answer: Callable[..., Any], **states: Any) -> None:
        self.told, self.answer, self.states = told, answer, states
        self.outputs = "reused"

    def wait_ready(self) -> None:
        return

    def method(self, name: str) -> Callable[..., Any]:
        return self.answer

    def reset(self) -> None:
        self.told.append("reset")

    def twin(self) -> Module:
        return Module(self.told, self.answer, **self.states)

    def configured(self, outputs: str) -> Module:
        self.outputs = outputs
        return self


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done on a GPU, where there is none."""
    done: list[str] = []

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        done.append(f"on {chosen.name}")
        yield
        done.append("off")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(done, "own"))
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event(done, blocking))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(done, "caller's"))
    return done


def worker(module: Module) -> tuple[ModuleWorker, Arrival]:
    staff = ModuleStaff(module, None, fresh_state=True)  # type: ignore[arg-type]  # stands for a module
    arrival = staff.arrive()
    assert arrival is not None
    made = staff.worker()
    assert made._module.outputs == "fresh"
    return made, arrival


def test_an_answer_is_computed_before_it_is_given(told: list[str]) -> None:
    def answer(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
        told.append(f"call {args} {kwargs}")
        made = torch.ones(2).as_subclass(OnGpu)
        made.told = told
        return {"y": [made, 3], "host": torch.ones(1)}

    made, arrival = worker(Module(told, answer, cache=1))
    result = made.run((1,), {"scale": 2}, arrival)
    assert set(result) == {"y", "host"}
    assert told == [
        "on own",
        "own waits for what caller's does",
        "reset",
        "call (1,) {'scale': 2}",
        "record own",
        "wait",
        "off",
        "keep for caller's",
    ]


def test_inputs_stay_until_the_device_is_done_with_a_call_that_failed(told: list[str]) -> None:
    def answer(*_: Any) -> None:
        raise ValueError("half-way")

    made, arrival = worker(Module(told, answer))
    with pytest.raises(ValueError, match="half-way"):
        made.run((), {}, arrival)
    assert told[-2:] == ["record own", "wait"]


@pytest.mark.gpu
def test_a_pool_on_a_gpu_answers_what_the_model_does(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "bundle.tar"), target="cpu", device="cuda")
    model = handmade.Classifier().cuda()
    side = torch.cuda.Stream()
    with Pool(module, 3, 4, fresh_state=True) as pool, torch.cuda.stream(side):
        asked = []
        for n in range(1, 60):
            torch.cuda._sleep(100_000)
            x = torch.full((1 + n % 8, 4), float(n), device="cuda")
            scale = torch.full((1,), 1.0 / n, device="cuda")
            asked.append((x, scale, pool.submit(x, scale=scale)))
        for x, scale, future in asked:
            answer = future.result(SECONDS)
            torch.testing.assert_close(answer["logits"], model(x, scale=scale)["logits"])
