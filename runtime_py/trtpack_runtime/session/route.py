# SPDX-License-Identifier: Apache-2.0
"""A method's program with its values numbered, and what type each has on the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import BundleError
from ..manifest import Method, TensorSpec
from ..program import Program
from .engine import SegmentEngine


@dataclass(frozen=True)
class Step:
    """A segment: its engine, and the numbers of the values it reads and defines."""

    engine: SegmentEngine
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def bound(self) -> tuple[int, ...]:
        """Those whose place TensorRT is told, in its order: not outputs that are sized by data."""
        own = zip(self.engine.outputs, self.outputs, strict=True)
        return (*self.inputs, *(v for name, v in own if name not in self.engine.by_data))


@dataclass(frozen=True)
class Slot:
    """A state slot: the numbers of the value it is read as, and of the one that replaces it."""

    name: str
    input: int
    output: int

    @property
    def is_read_only(self) -> bool:
        """Whether the method leaves it as it is."""
        return self.input == self.output


@dataclass(frozen=True)
class Route:
    """What a call does. ``types`` are those on the GPU by value, ``declared`` those of the bundle:
    INT64 where an engine of TensorRT 8 has INT32."""

    method: str
    specs: tuple[TensorSpec, ...]
    values: tuple[str, ...]
    types: tuple[str, ...]
    declared: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[tuple[TensorSpec, int], ...]
    states: tuple[Slot, ...]
    constants: tuple[tuple[int, str], ...]
    steps: tuple[Step, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs' names, in order."""
        return tuple(spec.name for spec in self.specs)

    @cached_property
    def defined(self) -> frozenset[int]:
        """The values that a segment computes."""
        return frozenset(value for step in self.steps for value in step.outputs)

    @cached_property
    def capturable(self) -> bool:
        """Whether one CUDA graph can hold the whole call."""
        return all(step.engine.capturable for step in self.steps)

    @cached_property
    def by_data(self) -> frozenset[int]:
        """The values whose size only the data tells."""
        return frozenset(
            value
            for step in self.steps
            for name, value in zip(step.engine.outputs, step.outputs, strict=True)
            if name in step.engine.by_data
        )


def route(
    program: Program,
    method: Method,
    engines: Sequence[SegmentEngine],
    declared: Mapping[str, str],
) -> Route:
    """Numbers a program's values.

    Args:
        program: the program, which ``wiring.check`` found to hold together.
        method: what the manifest says of it.
        engines: an engine for each segment.
        declared: every value's type in the bundle.

    Raises:
        BundleError: an engine's tensors are of other types than the bundle says.
    """
    names = tuple(declared)
    number = {name: i for i, name in enumerate(names)}
    types: dict[str, str] = {}
    steps = []
    for segment, engine in zip(program.segments, engines, strict=True):
        inputs = [segment.inputs[name] for name in engine.inputs]
        outputs = [segment.outputs[name] for name in engine.outputs]
        for own, name in zip(engine.names, (*inputs, *outputs), strict=True):
            has = engine.types[own]
            if types.setdefault(name, has) != has or not _same(has, declared[name]):
                raise BundleError(
                    f"segment {segment.name}: the engine's {own} is {has}, "
                    f"the bundle's {declared[name]}",
                    hint="build the bundle again",
                    wants=declared[name],
                    has=has,
                )
        steps.append(
            Step(engine, tuple(number[n] for n in inputs), tuple(number[n] for n in outputs))
        )
    tensors = [output for output in program.outputs if isinstance(output, str)]
    return Route(
        program.method,
        method.inputs,
        names,
        tuple(types.get(name, declared[name]) for name in names),
        tuple(declared.values()),
        tuple(number[name] for name in program.inputs if name is not None),
        tuple((s, number[n]) for s, n in zip(method.outputs, tensors, strict=True)),
        tuple(Slot(s.slot, number[s.input], number[s.output]) for s in program.state),
        tuple((number[name], stored) for name, stored in (program.constants or {}).items()),
        tuple(steps),
    )


def _same(has: str, wants: str) -> bool:
    return has == wants or (has, wants) == ("INT32", "INT64")
