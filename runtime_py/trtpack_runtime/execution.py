# SPDX-License-Identifier: Apache-2.0
"""Runs a program: its segments in order, each on the engine that was loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from . import dims, network
from .bundle import Bundle
from .engines import LoadContext, Runner, engine
from .errors import BundleError
from .ledger import carries_code
from .manifest import EngineRef
from .mapping import mapped
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


class OwnFile(Protocol):
    """An engine that this machine built itself, in place of one of the bundle."""

    @property
    def kind(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def record(self) -> Mapping[str, Any]: ...


class UnreadableEngineError(BundleError):
    """An engine that this machine built itself cannot be loaded; ``segment`` is whose it is."""

    def __init__(self, segment: str, cause: BundleError) -> None:
        super().__init__(f"segment {segment}: {cause.message}", hint=cause.hint)
        self.segment = segment


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
    """Every segment of a variant by method."""

    methods: Mapping[str, tuple[LoadedSegment, ...]]

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
        return Segments(methods)

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
    own: Mapping[str, OwnFile] | None = None,
    *,
    trust: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Segments:
    """Loads every segment: on its engine where that fits, else in PyTorch.

    ``own`` are engines of this machine that take the place of the bundle's, by segment;
    ``options`` are ``LoadContext``'s.

    Raises:
        BundleError: a program that does not hold together, or an engine that cannot be loaded;
            UnreadableEngineError where that is one of ``own``.
        DeviceError: the device has no room for an engine.
    """
    refs = bundle.manifest.variants[choice.variant].engines
    methods = {}
    for program in programs:
        _check(program, constants)
        for name in (program.constants or {}).values():
            constants[name]  # a Placed one moves now, not at the first call
        loaded = []
        for segment in program.segments:
            ref, mine = refs.get(segment.name), (own or {}).get(segment.name)
            loaded.append(
                _load(bundle, choice, segment, ref, mine, constants, device, trust, options or {})
            )
        methods[program.method] = tuple(loaded)
    return Segments(methods)


def _load(
    bundle: Bundle,
    choice: Choice,
    segment: Segment,
    ref: EngineRef | None,
    own: OwnFile | None,
    constants: Mapping[str, torch.Tensor],
    device: torch.device,
    trust: bool,
    options: Mapping[str, Any],
) -> LoadedSegment:
    portable = None
    if segment.network is not None:
        portable = network.from_bytes(bundle.member(segment.network))
    verdict = choice.chosen.engines.get(segment.name)
    usable = verdict is not None and verdict.usable and segment.name not in choice.chosen.own
    kind, blob = "reference", None
    record: Mapping[str, Any] = {}
    if own is not None:
        kind, blob, record, trust = own.kind, _own_blob(segment, own), own.record, True
    elif ref is not None and ref.member is not None and usable:
        # one that carries code is usable only where it is trusted
        trust = trust or carries_code(ref)
        kind, blob, record = ref.kind, bundle.member(ref.member), ref.record
    elif portable is not None:
        for constant in portable.constants.values():
            if constant.data in constants:
                constants[constant.data]
    weights = bundle.weights if kind.startswith("tensorrt") else {}
    context = LoadContext(
        segment, constants, device, portable, options, weights=weights, record=record, trust=trust
    )
    try:
        runner = engine(kind).load(blob, context)
    except BundleError as error:
        if own is None:
            raise
        raise UnreadableEngineError(segment.name, error) from error
    inputs, outputs = _order(segment, portable)
    return LoadedSegment(
        segment.name,
        kind,
        tuple(segment.inputs[name] for name in inputs),
        tuple(segment.outputs[name] for name in outputs),
        runner,
    )


def _own_blob(segment: Segment, own: OwnFile) -> memoryview:
    """The engine's file, mapped; it may be pruned from its store at any time."""
    try:
        return mapped(own.path).toreadonly()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        cause = BundleError(f"cannot read {own.path}: {reason}", hint="run it again")
        raise UnreadableEngineError(segment.name, cause) from error


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
