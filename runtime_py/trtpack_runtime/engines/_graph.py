# SPDX-License-Identifier: Apache-2.0
"""Replays an engine as a CUDA graph: one launch instead of one for every kernel.

TensorRT launches its kernels one by one, which takes longer than small ones run. A graph is
captured once an engine is called twice in a row with the same shapes; inputs are then copied to
where the graph reads them, and outputs copied from where it writes them, so that what a call
answers is the caller's own.

Source: TensorRT's documentation, "CUDA Graphs" (the engine runs once before a capture; a graph is
of one set of shapes).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._cuda import is_capturing
from ._execute import EngineRunner, Shape

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Graph:
    shapes: tuple[Shape, ...]
    graph: Any
    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]


class GraphRunner:
    """Runs an engine by a graph where its shapes stay the same; else as ``EngineRunner`` does.

    It works on the caller's stream, the default one too. Everything else is the engine runner's.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner
        self._graph: _Graph | None = None
        self._seen: tuple[Shape, ...] | None = None
        self._refused = self._stale = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["runner"], name)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As ``EngineRunner.__call__``."""
        import torch

        runner = self.runner
        with runner.lock, torch.cuda.device(runner.device):
            given = runner.ready(inputs)
            if is_capturing():  # this tells the context other shapes and addresses
                self._stale = True
                return runner.run_ready(given)
            graph = self._graph_for(given)
            if graph is None:
                return runner.run_ready(given)
            stream = torch.cuda.current_stream()
            if runner.last_stream not in (None, stream):  # one scratch memory, one set of tensors
                stream.wait_stream(runner.last_stream)
            runner.last_stream = stream
            for tensor in (*graph.inputs, *graph.outputs):
                tensor.record_stream(stream)  # the allocator knows only the one they were made on
            for place, tensor in zip(graph.inputs, given, strict=True):
                place.copy_(tensor)  # 64-bit integers become 32-bit ones where the engine has those
            check = runner.range_check(given, graph.inputs)
            graph.graph.replay()
            outputs = runner.widened([output.clone() for output in graph.outputs])
            if check is not None:
                check.wait()
            return outputs

    def _graph_for(self, given: Sequence[torch.Tensor]) -> _Graph | None:
        """The graph of these shapes; None at their first call, and where there can be none."""
        shapes = tuple(tuple(tensor.shape) for tensor in given)
        if self._graph is not None and self._graph.shapes == shapes and not self._stale:
            return self._graph
        self._stale = False
        seen, self._seen, self._graph = self._seen, shapes, None
        if seen == shapes and not self._refused:
            try:
                self._graph = self._captured(given, shapes)
            except RuntimeError as error:
                self._refused = True
                self.runner.forget()
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(
                    f"the engine runs without a CUDA graph: {reason}", UserWarning, stacklevel=4
                )
        return self._graph

    def _captured(self, given: Sequence[torch.Tensor], shapes: tuple[Shape, ...]) -> _Graph:
        """Captures the engine at these shapes.

        Raises:
            RuntimeError: CUDA or TensorRT cannot.
        """
        import torch

        runner, stream = self.runner, torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        if runner.last_stream is not None:  # the context has one scratch memory
            stream.wait_stream(runner.last_stream)
        with torch.cuda.stream(stream):
            places = [
                tensor.to(runner.engine_dtype(name), copy=True)
                for name, tensor in zip(runner.inputs, given, strict=True)
            ]
            context, outputs = runner.bind(places, stream)
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT cannot run the engine on a stream of its own")
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            captured = context.execute_async_v3(stream.cuda_stream)
        if not captured:
            raise RuntimeError("TensorRT cannot enqueue the engine while a graph is captured")
        torch.cuda.current_stream().wait_stream(stream)
        return _Graph(shapes, graph, places, outputs)
