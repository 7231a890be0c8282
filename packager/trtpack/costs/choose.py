# SPDX-License-Identifier: Apache-2.0
"""Chooses which nodes are accelerated: all that can be, less what costs more than it gains."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from .levels import Step, levels
from .predict import By, CostModel, predict

_TRIES = 160
"""How many divisions are predicted at the most for one improvement after the other."""
_WORTH = 0.001
"""What engines are predicted to gain has to be this part of the whole: products of matrices take
what they take, and 3 us of 8 ms are less than predictions can tell."""


@dataclass(frozen=True)
class Chosen:
    """A division: its segments in order with what runs each and its predicted microseconds.

    ``left`` are the nodes that could be accelerated and are not. ``most_us`` is predicted of as
    much accelerated as can be, ``none_us`` of nothing accelerated.
    """

    steps: tuple[Step, ...]
    runs: tuple[tuple[By, float], ...]
    left: frozenset[fx.Node]
    most_us: float
    none_us: float

    @property
    def predicted_us(self) -> float:
        """The microseconds of all segments."""
        return sum(us for _, us in self.runs)


def choose(
    model: CostModel,
    nodes: Sequence[fx.Node],
    reads: Mapping[fx.Node, Collection[fx.Node]],
    able: Collection[fx.Node],
    wanted: Collection[fx.Node] = (),
) -> Chosen:
    """The division of ``nodes`` that is predicted to be the fastest of those tried.

    ``able`` can be accelerated, ``wanted`` of them are, whatever that costs. Segments, and parts of
    them that hang together, are given to PyTorch, the smallest first, as long as that saves time;
    all of them where they are predicted to gain next to nothing.
    """
    nbytes = {node: work.writes for node, work in model.works.items()}

    def divided(accelerated: Collection[fx.Node]) -> tuple[float, list[Step]]:
        ways = levels(nodes, reads, accelerated, nbytes)
        return min(((predict(model, way), way) for way in ways), key=lambda found: found[0])

    labels = {node for node in nodes if node in able}
    most, steps = divided(labels)
    best = most
    tries, improved = 0, True
    while improved and tries < _TRIES:
        improved = False
        for part in sorted(_parts(steps, reads), key=len):
            tries += 1
            given = {n for n in part if n not in wanted}
            us, attempt = divided(labels - given) if given else (best, steps)
            if us < best:
                labels, steps, best, improved = labels - given, attempt, us, True
                break
            if tries >= _TRIES:
                break
    none, bare = divided(wanted)
    if none * (1 - _WORTH) < best:
        labels, steps = set(wanted), bare
    runs = tuple(map(model.runs, steps))
    left = frozenset(n for n in nodes if n in able and n not in labels)
    return Chosen(tuple(steps), runs, left, most, none)


def _parts(
    steps: Iterable[Step], reads: Mapping[fx.Node, Collection[fx.Node]]
) -> list[set[fx.Node]]:
    """What hangs together in each accelerated segment, and all of a segment."""
    found: list[set[fx.Node]] = []
    for step in steps:
        if not step.accelerated:
            continue
        of: dict[fx.Node, set[fx.Node]] = {}
        for node in step.nodes:
            part = {node}
            for source in reads[node]:
                if source in of and of[source] is not part:
                    joined = of[source]
                    joined |= part
                    for one in part:
                        of[one] = joined
                    part = joined
            of[node] = part
        apart = list({id(part): part for part in of.values()}.values())
        found += apart if len(apart) == 1 else [*apart, set(step.nodes)]
    return found
