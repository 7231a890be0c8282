# SPDX-License-Identifier: Apache-2.0
"""The fewest segments for a choice of nodes: one after the other, accelerated and not in turn.

Nodes move as far as their inputs and readers let them, so that what belongs together is together:
independent work that PyTorch does becomes one segment, however far apart its nodes stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True)
class Step:
    """One segment: its nodes in the graph's order."""

    accelerated: bool
    nodes: tuple[fx.Node, ...]


def levels(
    nodes: Sequence[fx.Node],
    reads: Mapping[fx.Node, Collection[fx.Node]],
    accelerated: Collection[fx.Node],
    nbytes: Mapping[fx.Node, int],
) -> Iterator[list[Step]]:
    """The steps, in an order in which each needs only earlier ones; every node is in one of them.

    ``reads`` are the nodes among ``nodes`` that each needs. No order of whole segments has fewer:
    a node's level is the least number of turns before it. Two ways are answered that differ in
    where nodes run that have a choice: beside the first that reads them; and as early as can be,
    but for those that make more bytes (``nbytes``) than they read.
    """
    chosen = set(accelerated)
    best = min(
        (_earliest(nodes, reads, chosen, first) for first in (True, False)),
        key=lambda level: len(set(level.values())),
    )
    for sizes in (None, nbytes):
        level = dict(best)
        _move_late(nodes, reads, chosen, sizes, level)
        members: dict[int, list[fx.Node]] = {}
        for node in nodes:
            members.setdefault(level[node], []).append(node)
        yield [Step(members[n][0] in chosen, tuple(members[n])) for n in sorted(members)]


def _earliest(
    nodes: Sequence[fx.Node],
    reads: Mapping[fx.Node, Collection[fx.Node]],
    chosen: Collection[fx.Node],
    first: bool,
) -> dict[fx.Node, int]:
    level: dict[fx.Node, int] = {}
    for node in nodes:
        mine = node in chosen
        own = 0 if mine == first else 1
        level[node] = max((level[n] + ((n in chosen) != mine) for n in reads[node]), default=own)
        level[node] = max(level[node], own)
    return level


def _move_late(
    nodes: Sequence[fx.Node],
    reads: Mapping[fx.Node, Collection[fx.Node]],
    chosen: Collection[fx.Node],
    nbytes: Mapping[fx.Node, int] | None,
    level: dict[fx.Node, int],
) -> None:
    """Moves nodes to the level of their first reader; with ``nbytes`` where fewer cross then."""
    readers: dict[fx.Node, list[fx.Node]] = {node: [] for node in nodes}
    for node in nodes:
        for source in reads[node]:
            readers[source].append(node)
    last: dict[fx.Node, int] = {}  # the latest level that reads a value, as far as is known
    for node in reversed(nodes):
        limits = [level[r] - ((r in chosen) != (node in chosen)) for r in readers[node]]
        latest = min(limits, default=level[node])
        if latest > level[node]:
            sources = (n for n in reads[node] if last.get(n, level[n]) < latest)
            if nbytes is None or sum(nbytes.get(n, 0) for n in sources) <= nbytes.get(node, 0):
                level[node] = latest
        for source in reads[node]:
            last[source] = max(last.get(source, 0), level[node])
