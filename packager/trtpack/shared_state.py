# SPDX-License-Identifier: Apache-2.0
"""State that the methods of a model share: what one changes, the others read as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import fx

from .capture import Captured, State, returned


def share_state(methods: Sequence[Captured]) -> tuple[Captured, ...]:
    """The methods with every buffer that any of them changes as state of all that read it.

    A method that only reads one answers it as it was.
    """
    changed = dict.fromkeys(state.slot for one in methods for state in one.state)
    return tuple(_reading(one, changed) for one in methods)


def _reading(captured: Captured, changed: Iterable[str]) -> Captured:
    """A captured method that reads what others change from its state."""
    module, graph = captured.graph_module, captured.graph_module.graph
    own = {state.slot for state in captured.state}
    found: list[State] = []
    states: list[fx.Node] = []
    count = len(returned(graph))
    for slot in changed:
        readers = [n for n in graph.find_nodes(op="get_attr", target=slot) if n.users]
        if slot in own or not readers:
            continue
        with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
            state = graph.placeholder(f"state_{slot.replace('.', '_')}")
        state.meta = dict(readers[0].meta)
        for reader in readers:
            reader.replace_all_uses_with(state)
            graph.erase_node(reader)
        found.append(State(slot, state.name, count + len(found)))
        states.append(state)
    if not found:
        return captured
    graph.output_node().args = ((*returned(graph), *states),)
    module.recompile()
    return replace(captured, state=(*captured.state, *found))
