# SPDX-License-Identifier: Apache-2.0
"""What crosses between the segments of a program, computed from the golden samples.

It lets a device name the segment that computes something else. A program of one segment has none:
what that answers is golden itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from trtpack_runtime.borders import crossing, noting
from trtpack_runtime.engines import LoadContext, engine
from trtpack_runtime.execution import LoadedSegment, Segments
from trtpack_runtime.manifest import Border
from trtpack_runtime.segment_loading import PORTABLE

from .capture import Captured, attribute
from .golden import GoldenSample
from .program import Assembled

_HOST = torch.device("cpu")


def record_borders(
    captured: Captured,
    programs: Iterable[Assembled],
    stored: Mapping[str, torch.Tensor],
    golden: Sequence[GoldenSample],
) -> tuple[dict[str, Border], ...]:
    """The borders of each golden sample by value name, those of all targets' programs together.

    A value has one name in all of them; a program whose borders others have told is not run.
    ``stored`` are the tensors of the weight store.
    """
    found: tuple[dict[str, Border], ...] = tuple({} for _ in golden)
    known: set[str] = set()
    for assembled in programs:
        wanted = crossing(assembled.program) - known
        if wanted:
            segments = _segments(assembled, stored)
            for borders, sample in zip(found, golden, strict=True):
                borders |= _run(assembled, segments, wanted, captured, stored, sample)
            known |= wanted
    return tuple(dict(sorted(borders.items())) for borders in found)


def _segments(assembled: Assembled, stored: Mapping[str, torch.Tensor]) -> Segments:
    """Every segment in PyTorch."""
    loaded = []
    for segment in assembled.program.segments:
        network = assembled.networks.get(segment.name)
        context = LoadContext(segment, stored, _HOST, network)
        runner = engine(PORTABLE).load(None, context)
        loaded.append(LoadedSegment.of(segment, network, PORTABLE, runner))
    return Segments({assembled.program.method: tuple(loaded)})


def _run(
    assembled: Assembled,
    segments: Segments,
    wanted: set[str],
    captured: Captured,
    stored: Mapping[str, torch.Tensor],
    sample: GoldenSample,
) -> dict[str, Border]:
    found: dict[str, Border] = {}
    first = {s.slot: attribute(captured.graph_module, s.slot) for s in captured.state}
    states = {slot: sample.before.get(slot, value).clone() for slot, value in first.items()}
    with torch.no_grad():
        segments.watched(noting(wanted, found)).run(
            assembled.program, sample.inputs, stored, states
        )
    return found
