# SPDX-License-Identifier: Apache-2.0
"""Emitting functions of the kinds that own regions: loops and conditionals.

TensorRT has no nested networks. What stands between a loop's or a conditional's boundary layers
belongs to it: a loop's body may read any tensor from outside, as one that stays the same; the
branches of a conditional only what an input layer brings in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Network

from ._layers import Added, emitter

if TYPE_CHECKING:
    from ._emit import Emitter

Tensors = Sequence[Any]


@emitter
def scan(
    e: Emitter,
    body: Network,
    length: Dim,
    axis: int,
    reverse: bool,
    states: Tensors = (),
    scanned: Tensors = (),
    captured: Tensors = (),
) -> Added:
    loop = e.made(e.definition.add_loop())
    count = e.shapes.scalar(length)
    limit = e.made(loop.add_trip_limit(count, e.enum("TripLimit", "COUNT")))
    iterators = [e.made(loop.add_iterator(tensor, axis, reverse)) for tensor in scanned]
    recurrences = [e.made(loop.add_recurrence(tensor)) for tensor in states]
    boundary = [*recurrences, *iterators]
    given = [*(layer.get_output(0) for layer in boundary), *captured]
    answers = e.region(body, given)
    outputs = []
    for recurrence, after in zip(recurrences, answers, strict=False):
        recurrence.set_input(1, after)
        last = e.enum("LoopOutput", "LAST_VALUE")
        outputs.append(e.made(loop.add_loop_output(recurrence.get_output(0), last, 0)))
    for answer in answers[len(states) :]:
        kind = e.enum("LoopOutput", "REVERSE" if reverse else "CONCATENATE")
        outputs.append(e.made(loop.add_loop_output(answer, kind, axis)))
        outputs[-1].set_input(1, count)
    return Added((*outputs, limit, *boundary), [layer.get_output(0) for layer in outputs])


@emitter
def branch(
    e: Emitter, condition: Any, then: Network, otherwise: Network, captured: Tensors = ()
) -> Added:
    conditional = e.made(e.definition.add_if_conditional())
    chooses = e.made(conditional.set_condition(condition))
    entries: list[Any] = []

    def enter(tensor: Any) -> Any:
        entries.append(e.made(conditional.add_input(tensor)))
        return entries[-1].get_output(0)

    first, second = (e.region(region, captured, enter) for region in (then, otherwise))
    outputs = [
        e.made(conditional.add_output(one, other)) for one, other in zip(first, second, strict=True)
    ]
    return Added((*outputs, chooses, *entries), [layer.get_output(0) for layer in outputs])
