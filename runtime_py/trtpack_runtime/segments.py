# SPDX-License-Identifier: Apache-2.0
"""Finds one segment of a bundle by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import network as networks
from . import program as programs
from .bundle import Bundle
from .errors import ConfigError
from .manifest import EngineRef
from .network import Network
from .program import Program, Segment
from .resolve import unknown_variant

TENSORRT_KINDS = frozenset({"tensorrt", "tensorrt-rtx"})
"""The engine kinds whose engines are TensorRT plans."""


@dataclass(frozen=True)
class FoundSegment:
    """A segment of a variant: its program, its engine and, where it has one, its network."""

    variant: str
    program: Program
    segment: Segment
    ref: EngineRef | None
    network: Network | None

    @property
    def name(self) -> str:
        """The segment's name."""
        return self.segment.name

    @property
    def kind(self) -> str:
        """The kind of its engine."""
        return self.ref.kind if self.ref is not None else "reference"

    def __str__(self) -> str:
        return f"{self.name} of {self.variant}"


def every_segment(bundle: Bundle, variant: str | None = None) -> Iterator[FoundSegment]:
    """The segments of a variant, or of all, in their order.

    Raises:
        ConfigError: the bundle has no such variant.
        BundleError: a program or network that is damaged.
    """
    variants = bundle.manifest.variants
    if variant is not None and variant not in variants:
        raise unknown_variant(variant, list(variants))
    for name in variants if variant is None else (variant,):
        for member in variants[name].programs.values():
            program = programs.from_json(bundle.json(member))
            for segment in program.segments:
                network = None
                if segment.network is not None:
                    network = networks.from_bytes(bundle.member(segment.network))
                engine = variants[name].engines.get(segment.name)
                yield FoundSegment(name, program, segment, engine, network)


def find_segment(bundle: Bundle, name: str, variant: str | None = None) -> FoundSegment:
    """The segment of that name; without a variant, the one whose engine is TensorRT's and built.

    Raises:
        ConfigError: there is no such segment, or several variants have one.
        BundleError: a program or network that is damaged.
    """
    everything = list(every_segment(bundle, variant))
    named = [found for found in everything if found.name == name]
    if not named:
        names = sorted({found.name for found in everything})
        raise ConfigError(
            f"there is no segment {name!r}, there are {', '.join(names) or 'none'}",
            hint="choose one of them",
        )
    of_tensorrt = [found for found in named if found.kind in TENSORRT_KINDS]
    built = [found for found in of_tensorrt if found.ref is not None and found.ref.member]
    best = built or of_tensorrt or named
    if len(best) > 1:
        raise ConfigError(
            f"several variants have a segment {name!r}: "
            f"{', '.join(sorted(found.variant for found in best))}",
            hint="choose one with --target",
        )
    return best[0]
