# SPDX-License-Identifier: Apache-2.0
"""Which segment of a program is the first that computes something else, and whether PyTorch in the
place of its engine puts it right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from . import network as networks
from . import program as programs
from .borders import bound_of, departure
from .engines import Runner
from .errors import DeviceError, DeviceLostError
from .execution import LoadedSegment
from .program import Program, Segment
from .segment_loading import PORTABLE
from .smoke import Sample, golden_samples
from .smoke_report import Comparison, Departure, SmokeReport
from .tf32 import full_float32

if TYPE_CHECKING:
    from .module import BundleModule

Replay = Callable[[], SmokeReport]


def blamed(
    module: BundleModule, method: str, report: SmokeReport, replay: Replay, *, degrade: bool
) -> SmokeReport:
    """A failed report with the segments to blame, in the order they were found.

    Each that runs on an engine is put into PyTorch and the samples replayed (``replay``), until
    they pass. With ``degrade`` it stays so, and the report is the last one; otherwise, or where
    they never pass, the engines are put back.
    """
    before, found, now = module.loaded, [], report
    while not now.passed:
        first = first_departure(module, method, now)
        if first is None:
            break
        found.append(first)
        if first.kind == PORTABLE:
            break
        try:
            module.put_in_pytorch(first.segment, first.reason)
            now = replay()
        except DeviceLostError:
            raise
        except DeviceError:  # there is no room to try it
            break
    if now.passed:
        found = [replace(one, passes_in_pytorch=True) for one in found]
    if now.passed and degrade:
        return replace(now, departures=tuple(found))
    module.put_back(before)
    return replace(report, departures=tuple(found))


def first_departure(module: BundleModule, method: str, report: SmokeReport) -> Departure | None:
    """The first segment that answers something else for the first sample that failed; None where
    every border is right, or the bundle tells too little."""
    described = module.bundle.manifest.methods[method]
    failed = {c.sample for c in report.failed}
    samples = golden_samples(module.bundle, described, module.device)
    number = next((i for i, sample in enumerate(samples) if sample.name in failed), None)
    if number is None:
        return None
    borders = described.borders[number] if number < len(described.borders) else {}
    program = _program(module, method)
    wrong = _wrong_outputs(module, program, report, samples[number].name)
    segments, bound = module.segments(method), bound_of(described)
    for i, (segment, values) in enumerate(
        zip(segments, _answers(module, method, samples[number]), strict=True)
    ):
        for name, value in values.items():
            border = borders.get(name)
            why = wrong.get(name) if border is None else departure(border, value, bound)
            if why is not None:
                layers = _layers(module, program.segments[i])
                return Departure(
                    segment.name, i + 1, len(segments), segment.kind, layers, name, why
                )
    return None


def _program(module: BundleModule, method: str) -> Program:
    member = module.bundle.manifest.variants[module.variant].programs[method]
    return programs.from_json(module.bundle.json(member))


def _wrong_outputs(
    module: BundleModule, program: Program, report: SmokeReport, sample: str
) -> Mapping[str, str]:
    """What is wrong with the values that the method answers, or keeps as state."""
    wrong: dict[str, Comparison] = {c.output: c for c in report.failed if c.sample == sample}
    described = module.bundle.manifest.methods[program.method].outputs
    tensors = [value for value in program.outputs if isinstance(value, str)]
    told = {v: wrong[o.name] for v, o in zip(tensors, described, strict=True) if o.name in wrong}
    for slot in program.state:
        if f"state {slot.slot}" in wrong:
            told[slot.output] = wrong[f"state {slot.slot}"]
    return {value: c.failure or "" for value, c in told.items()}


def _answers(module: BundleModule, method: str, sample: Sample) -> list[dict[str, torch.Tensor]]:
    """What each segment answers, by value name."""
    answers: list[dict[str, torch.Tensor]] = []

    def noting(segment: LoadedSegment) -> Runner:
        def run(given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            results = segment.run(given)
            values = zip(segment.outputs, results, strict=True)
            answers.append({name: value.detach().clone() for name, value in values})
            return results

        return run

    module.reset(sample.before)
    with torch.no_grad(), full_float32(), module.watching(noting):
        module.run(method, sample.inputs)
    module.reset()
    return answers


def _layers(module: BundleModule, segment: Segment) -> str:
    """What a segment is of, by its first and last layer: ``conv1 .. layer4.1.relu``."""
    if segment.network is not None:
        found = networks.from_bytes(module.bundle.member(segment.network)).layers
        names = [layer.origin or layer.name for layer in found]
    else:
        names = list(_nodes(segment))
    ends = list(dict.fromkeys((*names[:1], *names[-1:])))
    return " .. ".join(ends)


def _nodes(segment: Segment) -> Iterator[str]:
    for node in (segment.graph or {}).get("nodes", ()):
        yield str(node["name"])
