# SPDX-License-Identifier: Apache-2.0
"""Plans one target: partitions, converts, and plans again without what could not be converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .convert import ConversionError, ConvertedSegment, Ranges, convert, node_of
from .costs import kernels_of
from .engine_options import TENSORRT_KINDS
from .errors import UnsupportedOpError
from .lowering import Lowered
from .options import Options
from .partition import Plan, partition
from .partition_checks import check_wanted, check_whole
from .target import Target


@dataclass(frozen=True)
class Planned:
    """One target's plan of one method, with its converted TensorRT segments by segment name.

    ``profiles`` are the ranges of further optimisation profiles; ``failed`` the nodes that stay in
    PyTorch because building an engine of them failed, with the reason. ``min_block_size`` is that
    of the way to divide it that was measured to be the fastest, where that was asked.
    """

    target: Target
    lowered: Lowered
    plan: Plan
    converted: Mapping[str, ConvertedSegment]
    profiles: tuple[Ranges, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    min_block_size: int | None = None

    @property
    def method(self) -> str:
        """The model's method that it is of."""
        return self.lowered.captured.method

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of its segments, which no other method of the target has."""
        return tuple(segment.name for segment in self.plan.segments)


def plan(
    lowered: Lowered,
    target: Target,
    options: Options,
    profiles: Sequence[Ranges] = (),
    failed: Mapping[str, str] | None = None,
    min_block_size: int | None = None,
) -> Planned:
    """Partitions and converts, again whenever converting finds a node that cannot be converted.

    ``profiles`` are the ranges of further optimisation profiles, ``failed`` nodes that TensorRT
    could not build, with the reason; ``min_block_size`` goes before that of the options. A graph
    that is divided by cost is divided twice, at last with the kernels that converting told.

    Raises:
        UnsupportedOpError: with ``options.strict``, the first node that TensorRT refuses; with
            ``options.require_full``, one that is not in the only engine; one of
            ``options.trt_ops`` that is in none.
    """
    failed = dict(failed or {})
    refused = dict(failed)
    kernels: dict[str, int] | None = None
    divided_for = replace(target, compiles_here=target.compiles_here and not options.eager)
    while True:
        made = partition(
            lowered.captured.graph_module,
            divided_for,
            method=lowered.captured.method,
            torch_ops=options.torch_ops,
            torch_modules=options.torch_modules,
            trt_ops=options.trt_ops,
            min_block_size=min_block_size or options.min_block_size,
            divided=_divided(target, options),
            ranges=lowered.captured.ranges,
            refused=refused,
            kernels=kernels,
        )
        if options.strict and made.refusals:
            first = made.refusals[0]
            raise UnsupportedOpError(first.op, first.where, first.reason)
        check_wanted(made, options)
        if options.require_full:
            check_whole(made, target)
        converted, found = _converted(made, lowered, target, profiles)
        if converted and not found and kernels is None and made.prediction is not None:
            kernels = {}  # now that they are known, divided once more
            for segment in converted.values():
                kernels |= kernels_of(segment.network.layers, node_of)
            continue
        if not found:
            return Planned(
                target, lowered, made, converted, tuple(profiles), failed, min_block_size
            )
        refused.update(found)


def _divided(target: Target, options: Options) -> bool:
    """Whether engines and PyTorch share a graph: with AOTInductor's only where that was asked for,
    since what it compiles is PyTorch's own."""
    return target.engine_kind in TENSORRT_KINDS or options.engine == "inductor"


def again(
    planned: Planned, refused: Mapping[tuple[str, str], Mapping[str, str]], options: Options
) -> Planned:
    """The plan without the nodes that TensorRT refused to build, told by target and segment; as it
    is where there are none."""
    found = [refused.get((planned.target.name, name), {}) for name in planned.segments]
    if not any(found):
        return planned
    failed = dict(planned.failed)
    for nodes in found:
        failed.update(nodes)
    return plan(
        planned.lowered,
        planned.target,
        options,
        planned.profiles,
        failed,
        planned.min_block_size,
    )


def _converted(
    made: Plan, lowered: Lowered, target: Target, profiles: Sequence[Ranges]
) -> tuple[dict[str, ConvertedSegment], dict[str, str]]:
    """Each TensorRT segment's network, and one refused node of each that has none."""
    converted: dict[str, ConvertedSegment] = {}
    refused: dict[str, str] = {}
    for segment in made.segments:
        if segment.kind != "tensorrt":
            continue
        try:
            converted[segment.name] = convert(
                segment.graph_module,
                target,
                lowered.captured.ranges,
                lowered.recipes,
                profiles,
            )
        except ConversionError as error:
            refused[error.refusal.node] = error.refusal.reason
    return converted, refused
