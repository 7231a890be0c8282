# SPDX-License-Identifier: Apache-2.0
"""An engine called as TensorRT's own interface has it: what the runtime is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtpack_runtime.module import BundleModule


class Bare:
    """An execution context of a loaded engine, told shapes and addresses once.

    ``outputs`` are where it writes. It has to be kept as long as a call that it answered.
    """

    def __init__(self, runner: Any, inputs: Sequence[torch.Tensor]) -> None:
        """``runner`` is a loaded segment's ``run``; ``inputs`` are in its order."""
        self.context = runner.engine.create_execution_context()
        self.inputs = list(inputs)
        shapes = runner.output_shapes([tuple(tensor.shape) for tensor in inputs])
        dtypes = runner.borders.answered
        self.outputs = [
            torch.empty(shape, dtype=dtype, device=runner.device)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        for name, tensor in zip(runner.inputs, inputs, strict=True):
            if -1 in tuple(runner.engine.get_tensor_shape(name)):
                self.context.set_input_shape(name, tuple(tensor.shape))
            self.context.set_tensor_address(name, tensor.data_ptr())
        for name, tensor in zip(runner.outputs, self.outputs, strict=True):
            self.context.set_tensor_address(name, tensor.data_ptr())
        self._graph: Any = None

    def enqueue(self) -> None:
        """Gives the engine to the current stream."""
        self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream)

    def on(self, stream: Any) -> Any:
        """A call that enqueues on a stream and does nothing else at all."""
        enqueue, handle = self.context.execute_async_v3, stream.cuda_stream
        return lambda: enqueue(handle)

    def captured(self) -> Any:
        """A call that replays the engine as a graph and does nothing else."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        self.context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self.context.execute_async_v3(stream.cuda_stream)
        return self._graph.replay


def runners(module: BundleModule) -> list[Any]:
    """The runners of a module's TensorRT segments, in order."""
    found = [segment.run for segment in module.segments() if segment.kind.startswith("tensorrt")]
    if not found:
        kinds = [segment.kind for segment in module.segments()]
        raise SystemExit(f"wanted an engine, the bundle runs {kinds}")
    return found
