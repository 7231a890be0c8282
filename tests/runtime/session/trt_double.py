# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT whose engines compute: numpy over the addresses they were told, when the
stream comes to it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy

from tests.runtime.session.cuda_double import CudaDouble
from trtpack_runtime import dims

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]
NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "BF16": "u2", "BOOL": "?"}


@dataclass(frozen=True)
class Net:
    """What an engine computes. Tensors are ``(type, shape)``, a shape over ``dims.dim`` of inputs,
    None where only the data tells a size; ``profiles`` are of the inputs with open sizes."""

    inputs: Mapping[str, tuple[str, tuple[Any, ...]]]
    outputs: Mapping[str, tuple[str, tuple[Any, ...]]]
    compute: Callable[..., Sequence[Any]]
    profiles: Sequence[Mapping[str, tuple[Shape, Shape, Shape]]] = field(default=({},))
    scratch: int = 64

    def by_data(self) -> list[str]:
        """The outputs whose size only the data tells."""
        return [name for name, (_, shape) in self.outputs.items() if None in shape]


class Context:
    """An execution context."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.allocator: Any = None
        self.scratch: tuple[int, int] | None = None
        self.spoilt = False
        """A graph was captured from it, and then it was told other shapes."""
        self.captured = False

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.net.scratch
        self.scratch = memory, size

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.engine.trt.told.append((name, tuple(shape)))
        low, _, high = self.engine.net.profiles[self.profile][name]
        self.shapes[name] = tuple(shape)
        self.spoilt = self.captured
        return all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> Shape:
        net = self.engine.net
        if name in net.inputs:
            fixed = net.inputs[name][1]
            return self.shapes.get(name) or tuple(fixed)
        known = {tensor: self.get_tensor_shape(tensor) for tensor in net.inputs}
        return tuple(
            -1 if size is None else dims.evaluate(size, lambda of, axis: known[of][axis])
            for size in net.outputs[name][1]
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address, "TensorRT takes no null"
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocator = allocator
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, cuda = self.engine, self.engine.trt.cuda
        captures = cuda.handles[stream].captured is not None
        if engine.broken or (captures and engine.refuses_capture):
            engine.log("ERROR", "out of everything")
            return False
        assert not self.spoilt, "a graph of this context would read other shapes"
        self.captured |= captures
        shapes = {name: self.get_tensor_shape(name) for name in (*engine.net.inputs,)}
        places, by_data = dict(self.addresses), engine.net.by_data()
        if by_data:  # TensorRT waits for the data itself
            cuda.cudaStreamSynchronize(stream)
            results = self._results(shapes, places)
            for name in by_data:
                result = numpy.ascontiguousarray(results[name])
                places[name] = self.allocator.reallocate_output_async(
                    name, 0, result.nbytes, 256, stream
                )
                if not places[name]:
                    engine.log("ERROR", "the allocator has none")
                    return False
                self.allocator.notify_shape(name, result.shape)

        def work() -> None:
            for name, value in self._results(shapes, places).items():
                engine.array(places[name], engine.dtype(name), value.shape)[...] = value

        cuda.enqueue(stream, work, engine.name)
        return True

    def _results(self, shapes: Mapping[str, Shape], places: Mapping[str, int]) -> dict[str, Any]:
        net, engine = self.engine.net, self.engine
        if self.scratch is not None:
            assert engine.trt.cuda.holds(*self.scratch), "its scratch memory is gone"
        given = [engine.array(places[n], engine.dtype(n), shapes[n]).copy() for n in net.inputs]
        return {
            name: numpy.asarray(value)
            for name, value in zip(net.outputs, net.compute(*given), strict=True)
        }


class OldContext(Context):
    """One of release 8.6: its memory is a property, and outputs sized by data are asked for by
    another method."""

    set_device_memory = property()  # type: ignore[assignment]  # no method on 8.6

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "device_memory":
            name, value = "scratch", (value, self.engine.net.scratch)
        super().__setattr__(name, value)

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocator = SimpleNamespace(
            notify_shape=allocator.notify_shape,
            reallocate_output_async=lambda name, memory, size, alignment, stream: (
                allocator.reallocate_output(name, memory, size, alignment)
            ),
        )
        return True


class Engine:
    """A deserialised engine."""

    def __init__(self, trt: TrtDouble, name: str, log: Callable[[str, str], None]) -> None:
        self.trt, self.name, self.log, self.net = trt, name, log, trt.nets[name]
        self.contexts = 0
        self.broken = self.refuses_capture = False

    @property
    def num_io_tensors(self) -> int:
        return len(self.net.inputs) + len(self.net.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.net.profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self.net.inputs, *self.net.outputs][index]

    def dtype(self, name: str) -> str:
        declared = ({**self.net.inputs, **self.net.outputs})[name][0]
        return "INT32" if declared == "INT64" and self.trt.narrow else declared

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype(name))

    def get_tensor_shape(self, name: str) -> Shape:
        shape = ({**self.net.inputs, **self.net.outputs})[name][1]
        return tuple(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        return list(self.net.profiles[profile][name])

    def array(self, address: int, dtype: str, shape: Shape) -> Any:
        kind = numpy.dtype(NUMPY[dtype])
        count = int(numpy.prod(shape))
        assert self.trt.cuda.holds(address, count * kind.itemsize), "not memory of the GPU"
        memory = (ctypes.c_char * (count * kind.itemsize)).from_address(address)
        return numpy.frombuffer(memory, kind).reshape(shape)


class NewEngine(Engine):
    """One of release 10.3 and later."""

    @property
    def device_memory_size_v2(self) -> int:
        return self.net.scratch

    def create_execution_context(self, strategy: str = "STATIC") -> Context:
        assert strategy == "USER_MANAGED", "scratch memory is to be shared"
        self.contexts += 1
        return Context(self)


class OldEngine(Engine):
    """One of release 8.6."""

    @property
    def device_memory_size(self) -> int:
        return self.net.scratch

    def create_execution_context_without_device_memory(self) -> Context:
        self.contexts += 1
        return OldContext(self)


class TrtDouble:
    """As much of a TensorRT module as running engines takes: of release 10.3, with ``narrow`` of
    release 8.6, which has no INT64."""

    __version__ = "10.3.0"

    class ILogger:
        pass

    class IOutputAllocator:
        pass

    def __init__(self, cuda: CudaDouble, nets: Mapping[str, Net], narrow: bool = False) -> None:
        self.cuda, self.nets, self.narrow = cuda, nets, narrow
        self.engines: dict[str, Engine] = {}
        self.told: list[tuple[str, Shape]] = []
        if not narrow:
            self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")

    def Runtime(self, logger: Any) -> Any:
        def say(severity: str, text: str) -> None:
            logger.log(SimpleNamespace(name=severity), text)

        def deserialize(blob: memoryview) -> Engine | None:
            name = bytes(blob).decode().removeprefix("plan ")
            if name not in self.nets:
                say("ERROR", "magic tag does not match")
                return None
            self.engines[name] = (OldEngine if self.narrow else NewEngine)(self, name, say)
            return self.engines[name]

        return SimpleNamespace(deserialize_cuda_engine=deserialize)
