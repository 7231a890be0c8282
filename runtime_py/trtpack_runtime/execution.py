# SPDX-License-Identifier: Apache-2.0
"""Runs a program: its segments in order, each on the engine that was loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import network, wiring
from .bundle import Bundle
from .engine_file import OwnFile, UnreadableEngineError, own_blob
from .engines import LoadContext, Runner, engine
from .errors import BundleError
from .ledger import carries_code
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
        last = wiring.last_uses(segments, wiring.kept(program))
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
        wiring.check(program, constants)
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
        kind, blob, record, trust = own.kind, own_blob(segment.name, own), own.record, True
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
    inputs, outputs = wiring.order(segment, portable)
    return LoadedSegment(
        segment.name,
        kind,
        tuple(segment.inputs[name] for name in inputs),
        tuple(segment.outputs[name] for name in outputs),
        runner,
    )


def _output(
    output: Any, values: Mapping[str, torch.Tensor], sizes: Mapping[str, tuple[int, ...]]
) -> Any:
    return values[output] if isinstance(output, str) else wiring.plain_output(output, sizes)
