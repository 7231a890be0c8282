# SPDX-License-Identifier: Apache-2.0
"""Replays an engine as a CUDA graph: one launch instead of one for every kernel.

TensorRT launches its kernels one by one, which takes longer than small ones run. A graph is
captured at the second call with the same shapes, and several are kept. What a call answers is the
caller's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ._execute import EngineRunner
from ._lanes import Lane
from ._plans import Recent

if TYPE_CHECKING:
    import torch

    from ._captured import Graph
    from ._streams import Streams

Mode = Literal["off", "on", "auto"]
GRAPHS = 8
"""How many shapes have a graph at the same time in each thread, unless ``graphs`` says another
number."""

ATTEMPTS = 3
"""How many captures may fail: another thread that waits for the whole device ends one."""


def mode_of(option: Any) -> Mode:
    """The mode that a load option names: ``off``, ``on``, ``auto``, or a bool for the first two."""
    if isinstance(option, str) and option in ("off", "on", "auto"):
        return option  # type: ignore[return-value]  # it is one of them
    return "on" if option else "off"


@dataclass
class _Seen:
    """What is known of the calls with one key: where their tensors were, and which of them have
    been elsewhere since."""

    addresses: tuple[int, ...]
    moved: set[int] = field(default_factory=set)

    def see(self, addresses: tuple[int, ...]) -> None:
        """Takes in another call."""
        pairs = zip(self.addresses, addresses, strict=True)
        self.moved |= {i for i, (before, now) in enumerate(pairs) if before != now}
        self.addresses = addresses


class _Graphs:
    """The graphs of one lane by their key: the shapes, and whether the outputs are the caller's."""

    def __init__(self, limit: int) -> None:
        self.last: Graph | None = None
        self.by_key: Recent[Graph] = Recent(limit)
        self.seen: Recent[_Seen] = Recent()
        self.before: Any = None
        """The key of the last call, where that had no graph."""

    def let_go(self, lane: Lane, streams: Streams) -> bool:
        """Drops every graph, so that their contexts may run; whether there were any."""
        gone, self.last = self.by_key.values(), None
        self.by_key.clear()
        release(gone, lane, streams)
        return bool(gone)


def release(graphs: Sequence[Graph], lane: Lane, streams: Streams) -> None:
    """Gives the contexts of graphs back to the lane once the last replay is over."""
    if graphs and lane.last is not None:
        streams.of(lane.last).synchronize()
    for graph in graphs:
        graph.context.keepers.discard(graph)
        graph.context.forget()


class GraphRunner(EngineRunner):
    """Runs an engine by graphs where its shapes were seen before; else as ``EngineRunner`` does.

    A replay works on the caller's stream, the default one too.
    """

    def __init__(self, *args: Any, mode: Mode = "auto", graphs: int = GRAPHS, **more: Any) -> None:
        """As ``EngineRunner``; ``mode`` ``on`` also warns where there can be no graph; ``graphs``
        are kept for as many shapes in each thread.

        Raises:
            BundleError, DeviceError: as ``EngineRunner``.
        """
        from ._captured import copy

        super().__init__(*args, **more)
        self._copy = copy
        self._warns, self._limit = mode == "on", max(1, graphs)
        self._refused, self._attempts = False, ATTEMPTS

    def run(
        self,
        lane: Lane,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """As ``EngineRunner.run``."""
        handle = self._current(self._index)
        if self._refused or lane.apart or (handle and self._capturing()):
            return super().run(lane, inputs, outputs)
        graphs = lane.graphs
        if graphs is None:
            graphs = lane.graphs = _Graphs(self._limit)
        graph = graphs.last
        if graph is None or not graph.takes(inputs, outputs, self.borders):
            key = tuple([tensor.shape for tensor in inputs]), outputs is None
            graph = graphs.last = graphs.by_key.get(key)
            if graph is None or not graph.takes(inputs, outputs, self.borders):
                inputs = self.borders.ready(inputs)
                graph = self._graph_for(lane, graphs, inputs, outputs)
                if graph is None:
                    return super().run(lane, inputs, outputs)
        graphs.before = None
        if handle != lane.last:
            self.follow(lane, handle)
        results = self._replayed(graph, inputs, outputs)
        if lane.several:
            lane.event.record(self.streams.of(handle))
        return results

    def lasting(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor] | None
    ) -> Graph | None:
        """This thread's latest graph, if it serves these contiguous tensors with copies only, no
        check of their values and no other type; for ``again``."""
        lane = getattr(self._mine, "lane", None)
        graph = None if lane is None or lane.graphs is None else lane.graphs.last
        if graph is None or self.borders.narrowed or self.borders.widened:
            return None
        if not all(tensor.is_contiguous() for tensor in (*inputs, *(outputs or ()))):
            return None
        return graph if graph.takes(inputs, outputs, self.borders) else None

    def again(
        self,
        graph: Graph,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor] | None:
        """Replays what ``lasting`` answered, for tensors that it takes; None where this thread, its
        device or its stream is another than at its last call."""
        lane = getattr(self._mine, "lane", None)
        if lane is None or not lane.take(False):
            return None
        try:
            graphs, handle = lane.graphs, self._current(self._index)
            if graphs is None or graphs.last is not graph or lane.apart or lane.several:
                return None
            if handle != lane.last or self._here() != self._index:
                return None
            if handle and self._capturing():
                return None
            if graph.bring is not None:
                graph.bring(inputs, handle)
            graph.replay()
            if outputs is None:
                answers = [self._empty(*planned) for planned in graph.plan.outputs]
            else:
                answers = list(outputs)
            if graph.give is not None:
                graph.give(answers, handle)
            return answers
        finally:
            lane.give()
            if self._lanes.waiting:
                self._lanes.wake()

    def _replayed(
        self,
        graph: Graph,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        if graph.moved:
            self._copy(graph.places, [inputs[i] for i in graph.moved])
        if graph.narrowing is not None:
            graph.narrowing.begin()
        graph.replay()
        if outputs is not None:
            results = list(outputs)
            own = [results[i] for i in graph.returned]
        else:
            pairs = zip(graph.results, self.borders.answered, strict=True)
            results, own = [place.to(dtype, copy=True) for place, dtype in pairs], []
        if own:
            self._copy(own, graph.results)
        if graph.narrowing is not None:
            graph.narrowing.wait(dict(enumerate(self.inputs)))
        return results

    def _graph_for(
        self,
        lane: Lane,
        graphs: _Graphs,
        given: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> Graph | None:
        """The graph for these tensors; None at the first call of its kind, and where there can be
        none. ``given`` is what ``ready`` answered."""
        key = tuple(tuple(tensor.shape) for tensor in given), outputs is None
        graph = graphs.by_key.get(key)
        if graph is not None and graph.takes(given, outputs, self.borders):
            graphs.last = graph
            return graph
        addresses = tuple(tensor.data_ptr() for tensor in (*given, *(outputs or ())))
        seen, again = graphs.seen.get(key), graphs.before == key
        graphs.before = key
        if seen is None:
            graphs.seen.put(key, _Seen(addresses))
            return None
        seen.see(addresses)
        if graph is None and graphs.by_key.full and not again:
            return None  # shapes that come and go would only push each other out
        return self._captured(lane, graphs, key, seen, given, outputs)

    def _captured(
        self,
        lane: Lane,
        graphs: _Graphs,
        key: Any,
        seen: _Seen,
        given: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
    ) -> Graph | None:
        """A new graph in place of the one of its key, or of the one not used for longest."""
        from ._captured import captured

        if self._choice.plan(key[0]) is None:  # it has not run with these shapes
            return None
        old = graphs.by_key.pop(key)
        if old is None and graphs.by_key.full:
            old = graphs.by_key.pop_oldest()
        release([] if old is None else [old], lane, self.streams)
        handle, graphs.last = self._current(self._index), None
        if handle != lane.last:
            self.follow(lane, handle)
        try:
            context = self._choice.told(lane, key[0])
            if outputs is not None:
                self.borders.check_outputs(context.plan, outputs)
            graph = captured(context, self.borders, self.streams, given, outputs, seen.moved)
        except RuntimeError as error:
            self._attempts -= 1
            self._refused = not self._attempts
            graphs.let_go(lane, self.streams)
            for context in lane.contexts:
                context.forget()
            if self._warns and self._refused:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(
                    f"the engine runs without a CUDA graph: {reason}", UserWarning, stacklevel=5
                )
            return None
        context.keepers.add(graph)
        lane.context = None
        lane.seen.clear()
        graphs.by_key.put(key, graph)
        graphs.last = graph
        return graph

    def memory(self, lane: Lane) -> list[torch.Tensor]:
        """As ``EngineRunner.memory``, the graphs' places too."""
        graphs = [] if lane.graphs is None else lane.graphs.by_key.values()
        return [*super().memory(lane), *(tensor for graph in graphs for tensor in graph.memory())]
