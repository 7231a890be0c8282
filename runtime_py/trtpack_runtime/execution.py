# SPDX-License-Identifier: Apache-2.0
"""Runs a program: its segments in order, each on the engine that was loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from . import wiring
from .call_plan import CallPlan
from .engines import Runner
from .network import Network
from .program import Program, Segment

Results = tuple[list[Any], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class LoadedSegment:
    """A segment ready to run: its tensors' names in the engine's order, and the engine's kind."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Runner
    dtypes: tuple[str, ...] = ()
    """The outputs' types by TensorRT's names; empty where only running it tells."""

    @classmethod
    def of(
        cls, segment: Segment, portable: Network | None, kind: str, runner: Runner
    ) -> LoadedSegment:
        """A segment whose engine is loaded; ``portable`` is its network, where it has one.

        Raises:
            BundleError: the segment's tensors are not those of its graph.
        """
        inputs, outputs = wiring.order(segment, portable)
        return cls(
            segment.name,
            kind,
            tuple(segment.inputs[name] for name in inputs),
            tuple(segment.outputs[name] for name in outputs),
            runner,
            () if portable is None else tuple(portable.tensor(name).dtype for name in outputs),
        )


Watch = Callable[[LoadedSegment], Runner]
"""Answers what is called in place of a segment's ``run``."""


class Placed(Mapping[str, torch.Tensor]):
    """Stored tensors that move to a device when they are first asked for.

    What only engines read so stays where the bundle is mapped: they hold weights of their own.
    """

    def __init__(
        self,
        stored: Mapping[str, torch.Tensor],
        move: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._stored, self._move = stored, move
        self.moved: dict[str, torch.Tensor] = {}
        self._by_memory: dict[tuple[int, torch.dtype, torch.Size], torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.moved:
            tensor = self._stored[name]
            memory = (tensor.data_ptr(), tensor.dtype, tensor.shape)  # names of equal tensors
            if memory not in self._by_memory or not tensor.numel():
                self._by_memory[memory] = self._move(tensor)
            self.moved[name] = self._by_memory[memory]
        return self.moved[name]

    def move_all(self) -> None:
        """Moves every tensor."""
        for name in self._stored:
            self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True)
class Segments:
    """Every segment of a variant by method; ``failed`` are those that run in PyTorch because their
    engine did not load, and why."""

    methods: Mapping[str, tuple[LoadedSegment, ...]]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_engines(self) -> bool:
        """Whether an engine with weights of its own runs any of them."""
        kinds = {segment.kind for segments in self.methods.values() for segment in segments}
        return not kinds <= {"reference", "inductor"}

    def watched(self, watch: Watch) -> Segments:
        """The same segments, each run as ``watch`` says."""
        methods = {
            method: tuple(replace(segment, run=watch(segment)) for segment in segments)
            for method, segments in self.methods.items()
        }
        return Segments(methods, self.failed)

    def plan(self, program: Program, stored: Mapping[str, torch.Tensor]) -> CallPlan:
        """One method made ready to be called."""
        return CallPlan(program, self.methods[program.method], stored)

    def refusing(self, error: Exception) -> Segments:
        """The same segments, each raising an error instead."""

        def refuse(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            raise error

        return self.watched(lambda segment: refuse)

    def run(
        self,
        program: Program,
        inputs: Sequence[torch.Tensor],
        stored: Mapping[str, torch.Tensor],
        states: Mapping[str, torch.Tensor],
    ) -> Results:
        """The program's outputs in order, and each state slot's new value."""
        plan = self.plan(program, stored)
        values = plan.run(plan.values(inputs, [states[slot.slot] for slot in program.state]))
        after = {s.slot: values[k] for s, k in zip(program.state, plan.kept, strict=True)}
        return list(plan.leaves(plan.outputs(values), inputs)), after
