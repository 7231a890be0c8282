# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT's runtime that works in the tensors' memory.

It lives on the CPU and computes ``y = 2 * x``, or twice the sum of several inputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from tests.runtime.gpu_double import CPU, Gpu
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._load import deserialized

R = TypeVar("R", bound=EngineRunner)


class Context:
    """An execution context of the double."""

    def __init__(self, engine: Engine, *, memory: bool = True) -> None:
        self._engine, self.has_memory = engine, memory
        self._shape: tuple[int, ...] = (-1, -1)
        self._addresses: dict[str, int] = {}
        self.active_optimization_profile = 0
        self.device_memory_given: tuple[int, int] | None = None

    def set_device_memory(self, memory: int, size: int) -> None:
        self.device_memory_given = (memory, size)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.active_optimization_profile = index
        self._engine.journal.append(f"profile {index}")
        return self._engine.has_room

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._engine.journal.append(f"{self.active_optimization_profile}: {shape[0]}")
        self._shape = shape
        low, _, high = self._engine.profiles[self.active_optimization_profile]
        return low[0] <= shape[0] <= high[0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self._engine.gpu
        assert self.has_memory or self.device_memory_given, "it has no memory to work in"
        if gpu.capturing_now is not None:
            gpu.journal.append("captured")
            gpu.capturing_now.work.append(self.enqueued())
            return not self._engine.refuses_capture
        gpu.journal.append("runs")
        if self._engine.broken:
            self._engine.log("ERROR", "out of everything")
            return False
        self._engine.during_a_run()
        self.enqueued()()
        return True

    def enqueued(self) -> Callable[[], None]:
        """What the GPU does, with the shapes and addresses of now."""
        count = self._shape[0] * self._shape[1]
        number: Any = {"FLOAT": ctypes.c_float, "INT32": ctypes.c_int32}[self._engine.dtype]
        at = dict(self._addresses)
        *inputs, output = self._engine.names

        def work() -> None:
            given = [(number * count).from_address(at[name]) for name in inputs]
            written = (number * count).from_address(at[output])
            for i in range(count):
                written[i] = 2 * sum(values[i] for values in given)

        return work


class Engine:
    """A deserialised engine of the double: its output is twice the sum of its inputs."""

    dtype = "FLOAT"
    profiles: Sequence[Sequence[tuple[int, int]]] = (((1, 3), (2, 3), (4, 3)),)
    device_memory_size_v2 = 1024

    def __init__(self, log: Any, gpu: Gpu, names: Sequence[str]) -> None:
        self.log, self.gpu, self.journal, self.names = log, gpu, gpu.journal, names
        self.broken, self.has_room, self.refuses_capture = False, True, False
        self.made: list[Context] = []
        self.during_a_run: Callable[[], None] = lambda: None

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return list(self.profiles[profile])

    def create_execution_context(self, strategy: str = "STATIC") -> Context | None:
        if not self.has_room:
            self.log("ERROR", "no room left")
            return None
        self.made.append(Context(self, memory=strategy != "USER_MANAGED"))
        return self.made[-1]


class Trt:
    """As much of a TensorRT module as running an engine takes."""

    __version__ = "10.3.0.30"

    class ILogger:
        pass

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")

    def __init__(self, gpu: Gpu, names: Sequence[str] = "xy") -> None:
        self._gpu, self.names = gpu, tuple(names)

    def Runtime(self, logger: Any) -> Any:
        def say(severity: str, text: str) -> None:
            logger.log(SimpleNamespace(name=severity), text)

        def deserialize(blob: memoryview) -> Engine | None:
            if bytes(blob) != b"ptrt":
                say("ERROR", "magic tag does not match")
                return None
            self.engine = Engine(say, self._gpu, self.names)
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


def runner(
    trt: Trt,
    blob: bytes = b"ptrt",
    declared: str = "FLOAT",
    kind: Callable[..., R] = EngineRunner,  # type: ignore[assignment]  # mypy knows no such default
    **more: Any,
) -> R:
    """A runner of the double, its tensors of a type to the caller."""
    *inputs, output = trt.names
    types = dict.fromkeys(trt.names, declared)
    told = deserialized(trt, memoryview(blob))
    return kind(*told, inputs, [output], CPU, types, (), trt, **more)
