# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT's runtime that works in the tensors' memory.

It lives on the CPU and computes ``y = 2 * x``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._load import deserialized

CPU = torch.device("cpu")


class Stream:
    """A stream that notes what it waited for."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.cuda_stream, self.name, self._journal = 7, name, journal

    def synchronize(self) -> None:
        self._journal.append(f"the host waits for {self.name}")

    def wait_stream(self, other: Stream) -> None:
        self._journal.append(f"{self.name} waits for {other.name}")


class Context:
    """An execution context of the double."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = (-1, -1)
        self._addresses: dict[str, int] = {}
        self.profile = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        self._engine.journal.append(f"profile {index}")
        return self._engine.has_room

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._engine.journal.append(f"{self.profile}: {shape[0]}")
        self._shape = shape
        low, _, high = self._engine.profiles[self.profile]
        return low[0] <= shape[0] <= high[0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape

    def execute_async_v3(self, stream: int) -> bool:
        self._engine.journal.append("runs")
        if self._engine.broken:
            self._engine.log("ERROR", "out of everything")
            return False
        self.enqueued()()
        return True

    def enqueued(self) -> Callable[[], None]:
        """What the GPU does, with the shapes and addresses of now."""
        count = self._shape[0] * self._shape[1]
        number: Any = {"FLOAT": ctypes.c_float, "INT32": ctypes.c_int32}[self._engine.dtype]
        at = dict(self._addresses)

        def work() -> None:
            x, y = ((number * count).from_address(at[n]) for n in ("x", "y"))
            for i in range(count):
                y[i] = 2 * x[i]

        return work


class Engine:
    """A deserialised engine of the double."""

    num_io_tensors = 2
    dtype = "FLOAT"
    profiles: Sequence[Sequence[tuple[int, int]]] = (((1, 3), (2, 3), (4, 3)),)

    def __init__(self, log: Any, journal: list[str]) -> None:
        self.log, self.journal, self.broken, self.has_room = log, journal, False, True

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return list(self.profiles[profile])

    def create_execution_context(self) -> Context | None:
        return Context(self)


class Trt:
    """As much of a TensorRT module as running an engine takes."""

    __version__ = "10.3.0.30"

    class ILogger:
        pass

    def __init__(self, journal: list[str]) -> None:
        self._journal = journal

    def Runtime(self, logger: Any) -> Any:
        def say(severity: str, text: str) -> None:
            logger.log(SimpleNamespace(name=severity), text)

        def deserialize(blob: memoryview) -> Engine | None:
            if bytes(blob) != b"ptrt":
                say("ERROR", "magic tag does not match")
                return None
            self.engine = Engine(say, self._journal)
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces torch's streams; answers what happens on them, in order. The caller is on the
    default stream."""
    notes: list[str] = []
    default = Stream("the caller", notes)
    for name, double in {
        "device": lambda device: torch.no_grad(),
        "current_stream": lambda: default,
        "default_stream": lambda: default,
        "Stream": lambda: Stream("the engine", notes),
        "is_current_stream_capturing": lambda: False,
    }.items():
        monkeypatch.setattr(torch.cuda, name, double)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    return notes


def runner(trt: Trt, blob: bytes = b"ptrt", declared: str = "FLOAT") -> EngineRunner:
    """A runner of the double, its tensors of a type to the caller."""
    types = dict.fromkeys("xy", declared)
    return EngineRunner(*deserialized(trt, memoryview(blob)), ["x"], ["y"], CPU, types)
