# SPDX-License-Identifier: Apache-2.0
"""Methods called one after the other: what the model answers then, and whether a bundle does.

A golden sample begins with what the model's methods left, so it tells little of what the bundle's
own leave to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trtpack_runtime.module import BundleModule
from trtpack_runtime.smoke import SmokeReport, judge
from trtpack_runtime.tf32 import full_float32

from .buffers import unchanged_buffers
from .golden import copied, tensors_of
from .sources import Source


@dataclass(frozen=True)
class Turn:
    """One call among those that follow each other: a method's tensors, flat."""

    method: str
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


Turns = tuple[Turn, ...]
"""The calls of all methods in their order, from the first values of the state."""


def record_turns(sources: Sequence[Source], count: int) -> tuple[Turns, ...]:
    """Runs the model's methods in turn, once for each of their samples; none where it has one."""
    if len(sources) == 1:
        return ()
    found = []
    for calls in zip(*(source.samples(count) for source in sources), strict=False):
        with unchanged_buffers(sources[0].module):
            found.append(
                tuple(
                    Turn(source.method, tensors_of(call), tensors_of(source.run(copied(call))))
                    for source, call in zip(sources, calls, strict=True)
                )
            )
    return tuple(found)


def replay(loaded: BundleModule, recorded: Sequence[Turns]) -> SmokeReport:
    """Runs what was recorded and judges every output by its method's tolerances."""
    described = loaded.bundle.manifest.methods
    found = []
    with torch.no_grad(), full_float32():
        for number, turns in enumerate(recorded):
            loaded.reset()
            for turn in turns:
                method, name = described[turn.method], f"{turn.method}-{number} in turn"
                made = loaded.run(turn.method, [value.to(loaded.device) for value in turn.inputs])
                for output, got, want in zip(method.outputs, made, turn.outputs, strict=True):
                    bound = method.tolerance.get(output.name)
                    found.append(judge(name, output.name, got.cpu(), want, bound))
    loaded.reset()
    return SmokeReport(tuple(found))
