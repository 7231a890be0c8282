# SPDX-License-Identifier: Apache-2.0
"""Times the layers inside a segment, whatever runs it.

A TensorRT engine reports its own layers. A network that PyTorch runs is evaluated layer by layer,
an ATen graph operator by operator. Compiled code has no layers to time.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import fx

from trtpack_runtime import aten
from trtpack_runtime.clocks import Clock
from trtpack_runtime.engines import tensorrt_module
from trtpack_runtime.engines._find import imported
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.module import BundleModule
from trtpack_runtime.network import Network
from trtpack_runtime.reference import evaluate
from trtpack_runtime.segments import TENSORRT_KINDS, every_segment

from .layer_profiler import LayerTimes, profiled
from .origins import Origin, Origins


@dataclass(frozen=True)
class Reading:
    """One layer in one call."""

    name: str
    ms: float
    origins: tuple[Origin, ...] = ()


class Timer(Protocol):
    """Runs a segment and times its layers meanwhile."""

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs the segment."""

    def take(self) -> list[Reading]:
        """The layers of the last run, in order, once everything is done."""


def layer_times(
    module: BundleModule, method: str, segment: LoadedSegment, clock: Clock, stack: ExitStack
) -> Timer | None:
    """What times the layers of a segment until the stack closes; None where it has none."""
    found = next(
        f
        for f in every_segment(module.bundle, module.variant)
        if f.name == segment.name and f.program.method == method
    )
    if segment.kind in TENSORRT_KINDS and found.network is not None:
        trt = imported(tensorrt_module(segment.kind))
        times = stack.enter_context(profiled(trt, segment.run))
        return EngineTimer(segment, times, Origins(found.network))
    if segment.kind != "reference":
        return None
    if found.network is not None:
        return NetworkTimer(found.network, module, clock)
    assert found.segment.graph is not None
    graph = aten.decode(found.segment.graph, module.stored, module.device)
    return GraphTimer(graph, clock)


class EngineTimer:
    """A TensorRT engine with a profiler."""

    def __init__(self, segment: LoadedSegment, times: LayerTimes, origins: Origins) -> None:
        self._segment, self._times, self._origins = segment, times, origins

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs the engine."""
        self._times.take()
        return self._segment.run(inputs)

    def take(self) -> list[Reading]:
        """What TensorRT reported."""
        return [Reading(name, ms, self._origins.of(name)) for name, ms in self._times.take()]


class NetworkTimer:
    """A network under the evaluator."""

    def __init__(self, network: Network, module: BundleModule, clock: Clock) -> None:
        self._network, self._stored, self._clock = network, module.stored, clock
        origins = Origins(network)
        self._origins = {layer.name: origins.of(layer.name) for layer in network.layers}
        self._moments = _Moments(clock)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Evaluates the network."""
        self._moments.begin()
        return evaluate(self._network, self._stored, inputs, keep=self._moments)

    def take(self) -> list[Reading]:
        """The time between the layers' last outputs."""
        readings, before = [], self._moments.start
        for layer in self._network.layers:
            after = self._moments.at[layer.outputs[-1]]
            ms = self._clock.elapsed_ms(before, after)
            readings.append(Reading(layer.name, ms, self._origins[layer.name]))
            before = after
        return readings


class GraphTimer:
    """An ATen graph, operator by operator."""

    def __init__(self, graph: fx.GraphModule, clock: Clock) -> None:
        self._interpreter = _Timed(graph, clock)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs the graph."""
        self._interpreter.marks = []
        return list(self._interpreter.run(*inputs))

    def take(self) -> list[Reading]:
        """Each operator's time; it belongs to the module whose weights it reads."""
        clock = self._interpreter.clock
        return [
            Reading(f"{node.name} ({node.target})", clock.elapsed_ms(begin, end), _module_of(node))
            for node, begin, end in self._interpreter.marks
        ]


class _Moments(MutableMapping[str, torch.Tensor]):
    """Takes the evaluator's layer outputs, and keeps only when each came."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.start: Any = None
        self.at: dict[str, Any] = {}

    def begin(self) -> None:
        """Before the first layer."""
        self.start, self.at = self._clock.mark(), {}

    def __setitem__(self, name: str, value: torch.Tensor) -> None:
        self.at[name] = self._clock.mark()

    def __getitem__(self, name: str) -> torch.Tensor:
        raise KeyError(name)

    def __delitem__(self, name: str) -> None:
        raise KeyError(name)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Timed(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, clock: Clock) -> None:
        super().__init__(graph)
        self.clock = clock
        self.marks: list[tuple[fx.Node, Any, Any]] = []

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        begin = self.clock.mark()
        answer = super().run_node(n)
        self.marks.append((n, begin, self.clock.mark()))
        return answer


def _module_of(node: fx.Node) -> tuple[Origin, ...]:
    for argument in node.all_input_nodes:
        if argument.op == "get_attr":
            stored = str(argument.target).partition("|")[0]
            return (Origin(node.name, str(node.target), stored.rpartition(".")[0], ""),)
    return ()
