# SPDX-License-Identifier: Apache-2.0
"""What the original model answers, to prove a bundle with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from trtpack_runtime.errors import ConfigError

from .capture import Captured
from .sources import Source
from .sources.examples import Call
from .weights import StoredTensor


@dataclass(frozen=True)
class GoldenSample:
    """One call of the original model: its tensors in flat order, and the state it left."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    states: Mapping[str, torch.Tensor]

    def tensors(self) -> Iterator[StoredTensor]:
        """The sample as the tensors of one file."""
        for i, value in enumerate(self.inputs):
            yield StoredTensor(f"input.{i}", value)
        for i, value in enumerate(self.outputs):
            yield StoredTensor(f"output.{i}", value)
        for slot, value in self.states.items():
            yield StoredTensor(f"state.{slot}", value)


def record_golden(source: Source, captured: Captured, count: int) -> tuple[GoldenSample, ...]:
    """Runs the original model, each time from its initial state.

    Raises:
        ConfigError: it answers numbers that are not finite, which prove nothing.
    """
    samples = []
    for call in source.samples(count):
        with unchanged_buffers(source.module):
            outputs = tensors_of(source.run(copied(call)))
            after = dict(source.module.named_buffers())
            states = {s.slot: after[s.slot].clone() for s in captured.state if s.slot in after}
        samples.append(GoldenSample(tensors_of(call), outputs, states))
    for sample in samples:
        for i, value in enumerate(sample.outputs):
            if value.is_floating_point() and not value.isfinite().any():
                raise ConfigError(
                    f"output {i} of {source.name} has no finite number",
                    hint="check the weights, or the --input ranges",
                )
    return tuple(samples)


def run_again(source: Source) -> tuple[torch.Tensor, ...]:
    """What the original model answers for the first sample, once more."""
    call = next(source.samples(1))
    with unchanged_buffers(source.module):
        return tensors_of(source.run(copied(call)))


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Gives buffers that were written, or replaced by other tensors, their values back."""
    kept = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, value in kept:
                owner._buffers[name] = buffer
                buffer.copy_(value)


def copied(call: Call) -> Call:
    """Arguments the model may write into."""
    made: Call = pytree.tree_map_only(torch.Tensor, torch.clone, call)
    return made


def tensors_of(value: Any) -> tuple[torch.Tensor, ...]:
    """Copies of the tensors of a call or an answer, in flat order."""
    leaves = pytree.tree_leaves(value)
    return tuple(t.detach().clone() for t in leaves if isinstance(t, torch.Tensor))
