# SPDX-License-Identifier: Apache-2.0
"""Other weights for a module that is loaded: what its engines take, and what its constants become.

The engines read the new values when the module is called next (``Late``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from . import network as networks
from .bundle import Bundle
from .engines import Runner
from .errors import ConfigError
from .execution import LoadedSegment, Segments
from .manifest import Weights
from .module_weights import is_same
from .network import Network
from .new_values import Contents, NewValues
from .picking import Picked
from .program import Program, Segment
from .recipes import sources
from .refitting import is_inlined, refit_problem
from .safetensors import TensorView
from .samples import StoredTensor

_REPLACEABLE = ("refittable", "stripped")
"""What an engine of TensorRT is built with to take other weights."""


@dataclass(frozen=True)
class Changes:
    """What is not as the bundle has it.

    ``state`` are the values that were given, by ``state_dict`` name, ``stored`` all that follows
    from them, by the name in the weight store, in the host's memory. ``mark`` tells these weights
    from others; it is empty where there is no change.
    """

    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stored: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mark: str = ""

    def with_state(
        self, state: Mapping[str, torch.Tensor], bundle: Bundle, programs: Iterable[Program]
    ) -> Changes:
        """These changes with further values.

        Raises:
            BundleError: a constant follows from the weights in a way that the bundle does not tell.
        """
        every = {program.method: program for program in programs}
        read = {s.network for program in every.values() for s in program.segments}
        members = sorted(member for member in read if member is not None)
        found = {member: networks.from_bytes(bundle.member(member)) for member in members}
        contents = Contents(every, found)
        merged = {**self.state, **state}
        values = NewValues(bundle, merged, contents)
        values.check()
        stored = {name: values[name] for name in sorted(values.changed)}
        return Changes(merged, stored, uuid.uuid4().hex if stored else "")

    def weights(self, bundle: Bundle) -> Mapping[str, TensorView | StoredTensor]:
        """Every stored tensor as it is now, as engines are refitted with them."""
        new = {name: StoredTensor(name, value) for name, value in self.stored.items()}
        return {**bundle.weights, **new}


class Late:
    """Runs a segment on the engine that takes its place, which ``refit`` loads first."""

    def __init__(self, name: str, refit: Callable[[], Segments]) -> None:
        self._name, self._refit = name, refit

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As the segment's own runner."""
        for segments in self._refit().methods.values():
            for segment in segments:
                if segment.name == self._name:
                    return segment.run(inputs)
        raise AssertionError(self._name)


@dataclass(frozen=True)
class Stale:
    """Segments as they were loaded, of which those of ``names`` read weights that are not theirs
    yet."""

    segments: Segments
    names: frozenset[str] = frozenset()

    def late(self, refit: Callable[[], Segments]) -> Segments:
        """The same segments; ``refit`` loads those anew when one of them is called."""

        def watch(segment: LoadedSegment) -> Runner:
            return Late(segment.name, refit) if segment.name in self.names else segment.run

        return self.segments.watched(watch)

    def kept(self, bundle: Bundle, changes: Changes, *, in_place: bool) -> Segments:
        """Those that need not be loaded again: what reads none of the weights, and with
        ``in_place`` engines that are given theirs now.

        Raises:
            BundleError: an engine lacks a weight.
            DeviceError: the GPU has no memory for it.
        """
        kept, weights = {}, changes.weights(bundle)
        for method, segments in self.segments.methods.items():
            stay = []
            for segment in segments:
                refit = getattr(segment.run, "refit", None) if in_place else None
                if segment.name in self.names and refit is not None:
                    refit(weights)
                if segment.name not in self.names or refit is not None:
                    stay.append(segment)
            kept[method] = tuple(stay)
        names = {segment.name for segments in kept.values() for segment in segments}
        failed = {name: why for name, why in self.segments.failed.items() if name in names}
        return Segments(kept, failed)


def others(
    names: Weights,
    stored: Mapping[str, torch.Tensor],
    state_dict: Mapping[str, Any],
    prefix: str,
    states: Collection[str],
) -> dict[str, torch.Tensor]:
    """The values of a ``state_dict`` that a module does not have, but for its ``states``, in its
    types and in memory of their own; what has another shape is left to PyTorch to refuse."""
    found = {}
    for name, source in {**names.parameters, **names.buffers}.items():
        value, own = state_dict.get(prefix + name), stored[source]
        if not isinstance(value, torch.Tensor) or value.shape != own.shape or name in states:
            continue
        if not is_same(own, value.to(own.dtype)):
            found[name] = value.detach().to("cpu", own.dtype, copy=True)
    return found


def written(
    module: torch.nn.Module, bundle: Bundle, changes: Changes, states: Collection[str]
) -> dict[str, torch.Tensor]:
    """The values of a module's parameters and buffers, but for its ``states``, that neither the
    bundle's file nor ``changes`` has: they were written in place, or others put in their place.

    Raises:
        BundleError: the file is no longer in place.
    """
    bundle.map_again()
    names, weights = bundle.manifest.weights, bundle.weights
    known = {
        source: changes.stored[source] if source in changes.stored else weights[source].tensor()
        for source in {*names.parameters.values(), *names.buffers.values()}
    }
    now: dict[str, torch.Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return others(names, known, now, "", states)


def every_segment(
    bundle: Bundle, programs: Iterable[Program]
) -> Iterator[tuple[Segment, Network | None]]:
    """All segments of some programs, each with its portable form."""
    for program in programs:
        for segment in program.segments:
            member = segment.network
            yield segment, None if member is None else networks.from_bytes(bundle.member(member))


def reads(segment: Segment, network: Network | None) -> frozenset[str]:
    """The stored tensors that a segment reads."""
    if network is not None:
        return frozenset(constant.data for constant in network.constants.values())
    return frozenset(sources(segment.graph))


def untaken(
    segment: Segment,
    network: Network | None,
    picked: Picked | None,
    changed: Mapping[str, torch.Tensor],
) -> str | None:
    """Why an engine cannot take other weights; None where it can, or reads none of them."""
    mine = reads(segment, network) & changed.keys()
    if picked is None or not mine:
        return None
    weights = picked.record.get("weights")
    if network is not None:
        if weights not in _REPLACEABLE:
            return "it holds them inside"
        return refit_problem(network, mine, picked.record)
    if weights == "inside":
        return "it holds them inside"
    inlined = sorted(name for name in mine if is_inlined(changed[name].shape))
    return f"{inlined[0]} is a part of its code" if inlined else None


def check_taken(
    segments: Iterable[tuple[Segment, Network | None]],
    names: Collection[str],
    changes: Changes,
    picked: Callable[[str], Picked | None],
    *,
    strict: bool,
) -> frozenset[str]:
    """The segments that read one of the stored tensors ``names``.

    Raises:
        ConfigError: one runs on an engine of TensorRT that cannot take the changes. What
            AOTInductor compiled is left to PyTorch instead, but where ``strict`` says that engines
            run everything.
    """
    found = set()
    for segment, network in segments:
        if reads(segment, network).isdisjoint(names):
            continue
        found.add(segment.name)
        engine = picked(segment.name)
        reason = untaken(segment, network, engine, changes.stored)
        tensorrt = engine is not None and engine.kind.startswith("tensorrt")
        if reason is not None and (tensorrt or strict):
            refittable = 'build with engine_weights="refittable" (--engine-weights refittable)'
            raise ConfigError(
                f"the engine of {segment.name} was built with other weights, and {reason}",
                hint=f"{refittable if tensorrt else 'build the bundle again'}, or give them to the "
                "bundle with: trtpack update-weights",
            )
    return frozenset(found)
