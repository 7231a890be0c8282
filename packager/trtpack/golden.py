# SPDX-License-Identifier: Apache-2.0
"""What the original model answers, to prove a bundle with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from trtpack_runtime.errors import ConfigError

from .buffers import unchanged_buffers
from .capture import Captured
from .sources import Source
from .sources.examples import Call
from .weights import StoredTensor


@dataclass(frozen=True)
class GoldenSample:
    """One call of the original model: its tensors in flat order, and the state it left.

    It began with the state that the first samples of the methods in ``follows`` left, which is
    ``before``; all else had its initial value.
    """

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    states: Mapping[str, torch.Tensor]
    follows: tuple[str, ...] = ()
    before: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def tensors(self) -> Iterator[StoredTensor]:
        """The sample as the tensors of one file."""
        for i, value in enumerate(self.inputs):
            yield StoredTensor(f"input.{i}", value)
        for i, value in enumerate(self.outputs):
            yield StoredTensor(f"output.{i}", value)
        for slot, value in self.states.items():
            yield StoredTensor(f"state.{slot}", value)


def record_golden(
    sources: Sequence[Source], methods: Sequence[Captured], count: int
) -> list[tuple[GoldenSample, ...]]:
    """Runs the methods of the original model in their order, each as it is called in earnest.

    A method that has state which methods before it change begins with what their first samples
    left; every other one begins with the initial state.

    Raises:
        ConfigError: it answers numbers that are not finite, which prove nothing.
    """
    found: dict[str, tuple[GoldenSample, ...]] = {}
    last: dict[str, str] = {}  # who changed a slot last
    for source, captured in zip(sources, methods, strict=True):
        before_it = {last[state.slot] for state in captured.state if state.slot in last}
        follows = tuple(name for name in found if name in before_it)
        before = {k: value for name in follows for k, value in found[name][0].states.items()}
        samples = _recorded(source, captured, count, GoldenSample((), (), {}, follows, before))
        found[captured.method] = samples
        if samples:
            changed = samples[0].states.keys() & set(captured.changed)
            last |= dict.fromkeys(changed, captured.method)
    return list(found.values())


def _recorded(
    source: Source, captured: Captured, count: int, begin: GoldenSample
) -> tuple[GoldenSample, ...]:
    """The samples of one method, each with the beginning of ``begin``."""
    samples = []
    for call in source.samples(count):
        with unchanged_buffers(source.module):
            _put(source.module, begin.before)
            outputs = tensors_of(source.run(copied(call)))
            after = dict(source.module.named_buffers())
            states = {s.slot: after[s.slot].clone() for s in captured.state if s.slot in after}
        samples.append(replace(begin, inputs=tensors_of(call), outputs=outputs, states=states))
    for sample in samples:
        for i, value in enumerate(sample.outputs):
            if value.is_floating_point() and not value.isfinite().any():
                raise ConfigError(
                    f"output {i} of {source.name} has no finite number",
                    hint="check the weights, or the --input ranges",
                )
    return tuple(samples)


def try_out(source: Source) -> tuple[torch.Tensor, ...]:
    """What the original model answers for its example inputs, from its initial state."""
    with unchanged_buffers(source.module):
        return tensors_of(source.run(copied((source.args, source.kwargs))))


def run_again(
    source: Source, before: Mapping[str, torch.Tensor], tried: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """What the original model answers for the first sample, which begins with ``before``, another
    time: what it answered in ``try_out``, if that was the same call, else by a call now."""
    call = next(source.samples(1))
    if not before and _same(call, (source.args, source.kwargs)):
        return tried
    with unchanged_buffers(source.module):
        _put(source.module, before)
        return tensors_of(source.run(copied(call)))


def _put(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Gives buffers other values by their full names."""
    with torch.no_grad():
        for slot, value in values.items():
            path, _, name = slot.rpartition(".")
            buffers = module.get_submodule(path)._buffers
            present = buffers[name]
            if present is not None and present.shape == value.shape:
                present.copy_(value)
            else:
                buffers[name] = value.clone()


def _same(call: Call, other: Call) -> bool:
    leaves, spec = pytree.tree_flatten(call)
    others, other_spec = pytree.tree_flatten(other)
    return spec == other_spec and all(map(_equal, leaves, others))


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return tensors and one.dtype == other.dtype and torch.equal(one, other)


def copied(call: Call) -> Call:
    """Arguments the model may write into."""
    made: Call = pytree.tree_map_only(torch.Tensor, torch.clone, call)
    return made


def tensors_of(value: Any) -> tuple[torch.Tensor, ...]:
    """Copies of the tensors of a call or an answer, in flat order."""
    leaves = pytree.tree_leaves(value)
    return tuple(t.detach().clone() for t in leaves if isinstance(t, torch.Tensor))
