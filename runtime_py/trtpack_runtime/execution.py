# SPDX-License-Identifier: Apache-2.0
"""Runs a program: its segments in order, each on the engine that was loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import dims, network
from .bundle import Bundle
from .engines import LoadContext, Runner, engine
from .errors import BundleError
from .manifest import EngineRef
from .program import Program, Segment
from .resolve import Choice

Results = tuple[list[Any], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class LoadedSegment:
    """A segment ready to run: its tensors' names in the engine's order, and the engine's kind."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Runner


Watch = Callable[[LoadedSegment], Runner]
"""Answers what is called in place of a segment's ``run``."""


@dataclass(frozen=True)
class Segments:
    """Every segment of a variant by method, with the stored tensors they read."""

    methods: Mapping[str, tuple[LoadedSegment, ...]]
    constants: Mapping[str, torch.Tensor]

    def watched(self, watch: Watch) -> Segments:
        """The same segments, each run as ``watch`` says."""
        methods = {
            method: tuple(replace(segment, run=watch(segment)) for segment in segments)
            for method, segments in self.methods.items()
        }
        return replace(self, methods=methods)

    def run(
        self,
        program: Program,
        inputs: Sequence[torch.Tensor],
        stored: Mapping[str, torch.Tensor],
        states: Mapping[str, torch.Tensor],
    ) -> Results:
        """The program's outputs in order, and each state slot's new value."""
        names = [name for name in program.inputs if name is not None]
        values: dict[str, torch.Tensor] = dict(zip(names, inputs, strict=True))
        sizes = {name: tuple(value.shape) for name, value in values.items()}
        values.update((slot.input, states[slot.slot]) for slot in program.state)
        for name, constant in (program.constants or {}).items():
            values[name] = stored[constant].clone()
        segments = self.methods[program.method]
        last = _last_uses(segments, _kept(program))
        for i, segment in enumerate(segments):
            results = segment.run([values[name] for name in segment.inputs])
            values.update(zip(segment.outputs, results, strict=True))
            for name in last.get(i, ()):
                values.pop(name, None)
        outputs = [_output(output, values, sizes) for output in program.outputs]
        return outputs, {slot.slot: values[slot.output] for slot in program.state}


def load_segments(
    bundle: Bundle,
    choice: Choice,
    programs: Iterable[Program],
    constants: Mapping[str, torch.Tensor],
    device: torch.device,
) -> Segments:
    """Loads every segment: on its engine where that fits, else in PyTorch.

    Raises:
        BundleError: a program that does not hold together, or an engine that cannot be loaded.
    """
    refs = bundle.manifest.variants[choice.variant].engines
    methods = {}
    for program in programs:
        _check(program, constants)
        methods[program.method] = tuple(
            _load(bundle, choice, segment, refs.get(segment.name), constants, device)
            for segment in program.segments
        )
    return Segments(methods, constants)


def _load(
    bundle: Bundle,
    choice: Choice,
    segment: Segment,
    ref: EngineRef | None,
    constants: Mapping[str, torch.Tensor],
    device: torch.device,
) -> LoadedSegment:
    portable = None
    if segment.network is not None:
        portable = network.from_bytes(bundle.member(segment.network))
    context = LoadContext(segment, constants, device, portable)
    verdict = choice.chosen.engines.get(segment.name)
    if ref is not None and ref.member is not None and verdict is not None and verdict.usable:
        kind, blob = ref.kind, bundle.member(ref.member)
    else:
        kind, blob = "reference", None
    runner = engine(kind).load(blob, context)
    inputs, outputs = _order(segment, portable)
    return LoadedSegment(
        segment.name,
        kind,
        tuple(segment.inputs[name] for name in inputs),
        tuple(segment.outputs[name] for name in outputs),
        runner,
    )


def _order(
    segment: Segment, portable: network.Network | None
) -> tuple[Sequence[str], Sequence[str]]:
    """The segment's own input and output names in the engine's order."""
    if portable is not None:
        inputs, outputs = [t.name for t in portable.inputs], list(portable.outputs)
    else:
        assert segment.graph is not None
        inputs, outputs = list(segment.graph["inputs"]), list(segment.graph["outputs"])
    if set(inputs) != set(segment.inputs) or set(outputs) != set(segment.outputs):
        raise _malformed(f"the tensors of segment {segment.name} are not those of its graph")
    return inputs, outputs


def _check(program: Program, constants: Mapping[str, torch.Tensor]) -> None:
    """Every value is defined once, and before it is used."""
    known = {name for name in program.inputs if name is not None}
    known |= {slot.input for slot in program.state} | set(program.constants or {})
    for stored in (program.constants or {}).values():
        if stored not in constants:
            raise _malformed(f"there is no tensor {stored!r}")
    for segment in program.segments:
        for name in segment.inputs.values():
            if name not in known:
                raise _malformed(f"segment {segment.name} reads {name!r} before it is computed")
        known |= set(segment.outputs.values())
    for name in _kept(program):
        if name not in known:
            raise _malformed(f"the value {name!r} is never computed")


def _kept(program: Program) -> set[str]:
    """The values that are wanted after the last segment."""
    outputs = {output for output in program.outputs if isinstance(output, str)}
    return outputs | {slot.output for slot in program.state}


def _last_uses(segments: Sequence[LoadedSegment], kept: set[str]) -> dict[int, list[str]]:
    """Which values are no longer needed after each segment."""
    last: dict[str, int] = {}
    for i, segment in enumerate(segments):
        last.update(dict.fromkeys((*segment.inputs, *segment.outputs), i))
    uses: dict[int, list[str]] = {}
    for name, i in last.items():
        if name not in kept:
            uses.setdefault(i, []).append(name)
    return uses


def _output(
    output: Any, values: Mapping[str, torch.Tensor], sizes: Mapping[str, tuple[int, ...]]
) -> Any:
    match output:
        case str():
            return values[output]
        case {"constant": value}:
            return value
        case {"size": size}:
            return dims.evaluate(dims.from_json(size), lambda name, axis: sizes[name][axis])
    raise _malformed(f"{output!r} is no output")


def _malformed(reason: str) -> BundleError:
    return BundleError(f"malformed program: {reason}", hint="build the bundle again")
