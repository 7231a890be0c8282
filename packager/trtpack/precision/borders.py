# SPDX-License-Identifier: Apache-2.0
"""Chooses the types of operators that compute in either so that the fewest casts are needed.

It is a minimum cut: on one side what computes wide, on the other what computes small. A value that
readers of the other side need costs one cast, however many they are. An operator that computes
wide though it need not costs an eighth of one, so that equal choices go to the small type.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx

_CAST, _WIDE = 8, 1
_SOURCE, _SINK = "wide", "small"


@dataclass(frozen=True)
class Value:
    """What a maker answers and who reads it; both named as in ``fixed``."""

    maker: Hashable
    readers: tuple[Hashable, ...]


def fewest_casts(
    values: Iterable[Value], fixed: Mapping[Hashable, bool], free: Iterable[Hashable]
) -> set[Any]:
    """Those of the ``free`` that compute wide; ``fixed`` says so of all others."""
    graph = networkx.DiGraph()
    graph.add_nodes_from((_SOURCE, _SINK))
    for one, wide in fixed.items():
        if wide:
            graph.add_edge(_SOURCE, ("node", one))
        else:
            graph.add_edge(("node", one), _SINK)
    for one in free:
        graph.add_edge(("node", one), _SINK, capacity=_WIDE)
    for number, value in enumerate(values):
        maker = ("node", value.maker)
        widened, narrowed = ("up", number), ("down", number)
        graph.add_edge(widened, maker, capacity=_CAST)
        graph.add_edge(maker, narrowed, capacity=_CAST)
        for reader in value.readers:
            graph.add_edge(("node", reader), widened)
            graph.add_edge(narrowed, ("node", reader))
    _, (wide_side, _) = networkx.minimum_cut(graph, _SOURCE, _SINK)
    return {one for one in free if ("node", one) in wide_side}
