# SPDX-License-Identifier: Apache-2.0
"""Plans one target: partitions, converts, and plans again without what could not be converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .branches import every_branch
from .convert import ConversionError, ConvertedSegment, Ranges, convert
from .errors import ConfigError, UnsupportedOpError
from .lowering import Lowered
from .options import Options
from .partition import Plan, partition
from .sources.examples import nearest
from .target import Target

METHOD = "forward"


@dataclass(frozen=True)
class Planned:
    """One target's plan with its converted TensorRT segments, by segment name.

    ``profiles`` are the ranges of further optimisation profiles; ``failed`` the nodes that stay in
    PyTorch because building an engine of them failed, with the reason.
    """

    target: Target
    plan: Plan
    converted: Mapping[str, ConvertedSegment]
    profiles: tuple[Ranges, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def plan(
    lowered: Lowered,
    target: Target,
    options: Options,
    profiles: Sequence[Ranges] = (),
    failed: Mapping[str, str] | None = None,
) -> Planned:
    """Partitions and converts, again whenever converting finds a node that cannot be converted.

    ``profiles`` are the ranges of further optimisation profiles, ``failed`` nodes that TensorRT
    could not build, with the reason.

    Raises:
        UnsupportedOpError: with ``options.strict``, the first node that TensorRT refuses.
    """
    failed = dict(failed or {})
    refused = dict(failed)
    while True:
        made = partition(
            lowered.captured.graph_module,
            target,
            method=METHOD,
            torch_ops=options.torch_ops,
            min_block_size=options.min_block_size,
            refused=refused,
        )
        if options.strict and made.refusals:
            first = made.refusals[0]
            raise UnsupportedOpError(first.op, first.where, first.reason)
        converted, found = _converted(made, lowered, target, profiles)
        if not found:
            return Planned(target, made, converted, tuple(profiles), failed)
        refused.update(found)


def again(
    lowered: Lowered, planned: Planned, refused: Mapping[str, str], options: Options
) -> Planned:
    """The plan without the nodes that TensorRT refused to build; as it is where there are none."""
    if not refused:
        return planned
    failed = {**planned.failed, **refused}
    return plan(lowered, planned.target, options, planned.profiles, failed)


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


def check_torch_ops(lowered: Lowered, options: Options) -> None:
    """Refuses an operator to keep in PyTorch that the model does not have, a misspelling mostly.

    Raises:
        ConfigError: with the nearest operator that it has.
    """
    module = lowered.captured.graph_module
    nodes = [node for m in (module, *every_branch(module)) for node in m.graph.nodes]
    found = {str(node.target) for node in nodes if node.op == "call_function"}
    known = sorted(found | {name.rpartition(".")[0] for name in found} - {""})
    for name in options.torch_ops:
        if name not in known:
            near = nearest(name, known)
            raise ConfigError(
                f"the lowered model has no operator {name} to keep in PyTorch",
                hint=f"did you mean --torch-op {near}?"
                if near
                else "choose one of those that trtpack explain lists",
            )
