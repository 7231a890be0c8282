# SPDX-License-Identifier: Apache-2.0
"""A program made ready to be called: its values in numbered slots, known before the first call.

The slots are, in order, the method's tensor inputs, its state, its constants, and what each segment
answers. A call so looks up no names; it keeps a value no longer than until its last reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from . import dims, wiring
from .program import Program, StateSlot
from .segments import TENSORRT_KINDS

if TYPE_CHECKING:
    from .execution import LoadedSegment

Values = list[Any]
Sized = Callable[[Sequence[torch.Tensor]], Any]
"""An output that is no tensor, told by the method's inputs."""


@dataclass(frozen=True)
class Step:
    """A segment: the slots it reads, how many it answers from ``first`` on, those whose last reader
    it is, and which of the program's tensor outputs it answers, by number."""

    segment: LoadedSegment
    reads: tuple[int, ...]
    first: int
    count: int
    done: tuple[int, ...]
    wanted: tuple[int | None, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it answers any of the program's outputs."""
        return any(number is not None for number in self.wanted)


class CallPlan:
    """How one method of a variant is run; several threads may run it at once."""

    def __init__(
        self,
        program: Program,
        segments: Sequence[LoadedSegment],
        stored: Mapping[str, torch.Tensor],
    ) -> None:
        """Compiles a program that ``wiring.check`` found whole."""
        slots: dict[str, int] = {}
        inputs = [name for name in program.inputs if name is not None]
        constants = program.constants or {}
        for name in (*inputs, *(slot.input for slot in program.state), *constants):
            slots[name] = len(slots)
        self._at = dict(slots)
        self.input_count, count = len(inputs), len(slots)
        self._constants = _constants(constants, segments, stored)
        last = wiring.last_uses(segments, wiring.kept(program))
        steps = []
        for number, segment in enumerate(segments):
            reads = tuple(slots[name] for name in segment.inputs)
            first = count
            for name in segment.outputs:
                slots[name] = count
                count += 1
            done = tuple(slots[name] for name in last.get(number, ()))
            steps.append(Step(segment, reads, first, count - first, done))
        self._quick = tuple((s.segment.run, s.reads, s.first + s.count, s.done) for s in steps)
        self.results = tuple(slots[o] if isinstance(o, str) else None for o in program.outputs)
        """The slot of each output; None for one that is no tensor."""
        self.tensors = tuple(slot for slot in self.results if slot is not None)
        numbers = {slot: number for number, slot in reversed(list(enumerate(self.tensors)))}
        self.steps = tuple(
            replace(s, wanted=tuple(numbers.get(s.first + i) for i in range(s.count)))
            for s in steps
        )
        self._into = tuple(_into(step) for step in self.steps)
        self.is_direct = {n for step in self._into if step[2] for n in step[-1]} == {
            *range(len(self.tensors))
        }
        """Whether engines write every output, and can write it where they are told."""
        self.kept = tuple(slots[slot.output] for slot in program.state)
        """The slot of each state's next value."""
        self.risky = self._may_alias(steps, program.state)
        """The slots of outputs and next states that may lie in the memory of a state."""
        self._others: tuple[Sized, ...] = tuple(
            _other(output, self._at) for output in program.outputs if not isinstance(output, str)
        )

    def _may_alias(self, steps: Sequence[Step], state: Sequence[StateSlot]) -> tuple[int, ...]:
        if not self.kept:
            return ()
        written = [k for k, slot in zip(self.kept, state, strict=True) if not slot.is_read_only]
        fresh = {
            slot
            for step in steps
            if step.segment.kind in TENSORRT_KINDS
            for slot in range(step.first, step.first + step.count)
        }
        return tuple({slot: None for slot in (*self.tensors, *written) if slot not in fresh})

    def values(self, inputs: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()) -> Values:
        """The slots before the first segment."""
        return [*inputs, *states, *[t.clone() if own else t for t, own in self._constants]]

    def run(self, values: Values) -> Values:
        """Runs every segment; afterwards the slots of outputs and state are filled."""
        for run, reads, end, done in self._quick:
            values += run([values[slot] for slot in reads])
            if len(values) != end:
                raise wiring.malformed(f"after an engine there are {len(values)} values, not {end}")
            for slot in done:
                values[slot] = None
        return values

    def run_direct(self, values: Values, out: Sequence[torch.Tensor]) -> Values:
        """As ``run``, with the outputs in ``out``, contiguous tensors of the right types and
        shapes; for a plan that ``is_direct``."""
        for run, reads, into, done, wanted in self._into:
            inputs = [values[slot] for slot in reads]
            if into is None:
                values += run(inputs)
            else:
                room = [out[number] for number in wanted]
                into(inputs, room)
                values += room
            for slot in done:
                values[slot] = None
        return values

    def outputs(self, values: Values) -> list[torch.Tensor]:
        """The tensors among the outputs, in order."""
        return [values[slot] for slot in self.tensors]

    def leaves(
        self, tensors: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> Sequence[Any]:
        """Every output in order: the tensors, and what is none."""
        if not self._others:
            return tensors
        found, others = iter(tensors), iter(self._others)
        return [next(others)(inputs) if s is None else next(found) for s in self.results]


def _into(step: Step) -> tuple[Any, tuple[int, ...], Any, tuple[int, ...], tuple[int, ...]]:
    """What ``run_direct`` needs of a step: ``run_into`` where all that it answers is wanted."""
    wanted = tuple(number for number in step.wanted if number is not None)
    run: Any = step.segment.run
    into = getattr(run, "run_into", None) if wanted and len(wanted) == step.count else None
    return run, step.reads, into, step.done, wanted


def _constants(
    constants: Mapping[str, str],
    segments: Sequence[LoadedSegment],
    stored: Mapping[str, torch.Tensor],
) -> tuple[tuple[torch.Tensor, bool], ...]:
    """Each constant, and whether a call gets a copy: PyTorch may answer views of what it reads,
    which the caller may write to. Engines answer memory of their own."""
    on_engines = {n for s in segments if s.kind in TENSORRT_KINDS for n in s.inputs}
    elsewhere = {n for s in segments if s.kind not in TENSORRT_KINDS for n in s.inputs}
    return tuple(
        (stored[source], name in elsewhere or name not in on_engines)
        for name, source in constants.items()
    )


def _other(output: Any, at: Mapping[str, int]) -> Sized:
    match output:
        case {"size": size}:
            wanted = dims.from_json(size)
            return lambda inputs: dims.evaluate(wanted, lambda n, axis: inputs[at[n]].shape[axis])
    value = wiring.plain_output(output, {})
    return lambda inputs: value
