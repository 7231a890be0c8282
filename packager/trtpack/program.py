# SPDX-License-Identifier: Apache-2.0
"""Writes a plan and its converted segments as a program the runtime can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trtpack_runtime import dims, program
from trtpack_runtime import recipes as recipe_format
from trtpack_runtime.dims import Dim
from trtpack_runtime.errors import CompileError
from trtpack_runtime.network import Network
from trtpack_tools.check import check_network

from .aten_encoding import encode
from .branches import is_graph
from .capture import Captured, attribute
from .convert import ConvertedSegment, Passed
from .converters.symbols import Symbols, UnknownSymbolError
from .partition import Plan, PlannedSegment
from .weights import WeightStore, renamed_constants


@dataclass(frozen=True)
class Assembled:
    """A program with its networks (segment name -> network), constants under stored names."""

    program: program.Program
    networks: Mapping[str, Network]


def assemble(
    captured: Captured,
    plan: Plan,
    converted: Mapping[str, ConvertedSegment],
    store: WeightStore,
    method: str,
) -> Assembled:
    """Puts every constant into ``store`` and every segment into execution order.

    Segment outputs that no layer computes (an input handed through, a constant, a value twice)
    are resolved here, so that engines never have them.

    Raises:
        CompileError: the model answers a number that only the data tells.
    """
    networks: dict[str, Network] = {}
    aliases: dict[str, str] = {}
    derived = _Derived(captured, store)
    constants = {value: derived.put(name) for value, name in plan.constants.items()}
    segments: list[program.Segment] = []
    for segment in plan.segments:
        inputs = {name: aliases.get(name, name) for name in segment.inputs}
        if segment.kind == "torch":
            graph = _aten(segment, derived)
            outputs = {name: name for name in segment.outputs}
            segments.append(program.Segment(segment.name, "aten", inputs, outputs, graph=graph))
            continue
        done = converted[segment.name]
        outputs = {}
        for value, name in zip(segment.outputs, done.outputs, strict=True):
            if isinstance(name, str):
                outputs[name] = value
            elif name.kind == "constant":
                constants[value] = derived.put_constant(done, name.name)
            else:
                aliases[value] = _source(name, inputs, outputs)
        if not outputs:
            continue  # nothing is left for an engine to compute
        sources = {
            name: store.put(name, attribute(captured.graph_module, name))
            for name in _read_by_recipes(done)
        }
        network = networks[segment.name] = _stored(done, derived, sources)
        check_network(network)
        member = f"networks/{network.digest()}.json"
        segments.append(program.Segment(segment.name, "network", inputs, outputs, network=member))
    results = [aliases.get(name, name) for name in plan.outputs]
    symbols = Symbols.of(captured.graph_module)
    return Assembled(
        program.Program(
            method,
            captured.inputs,
            tuple(_output(o, results, symbols) for o in captured.outputs),
            tuple(segments),
            tuple(program.StateSlot(s.slot, s.input, results[s.output]) for s in captured.state),
            constants,
            derived.recipes,
        ),
        networks,
    )


class _Derived:
    """Stores what a program reads outside its networks, with the recipes of what is derived."""

    def __init__(self, captured: Captured, store: WeightStore) -> None:
        self._module, self._store = captured.graph_module, store
        self._known: Mapping[str, dict[str, Any]] = self._module.meta.get("recipes", {})
        self._weights = frozenset((*captured.parameters, *captured.buffers))
        self.recipes: dict[str, Any] = {}

    def put(self, name: str, value: torch.Tensor | None = None) -> str:
        """Stores an attribute of the captured module; ``value`` where it is at hand."""
        return self._put(name, self._read(name) if value is None else value, self._known.get(name))

    def put_constant(self, done: ConvertedSegment, name: str) -> str:
        """Stores a constant that a converter made and hands through."""
        constant = done.network.constants.get(name)
        recipe = constant.recipe if constant is not None else self._known.get(name)
        return self._put(name, done.constants[name], recipe)

    def _put(self, name: str, value: torch.Tensor, recipe: Mapping[str, Any] | None) -> str:
        stored = self._store.put(name, value, follows=self._follows(name, recipe))
        if recipe is not None:
            read = {n: self._store.put(n, self._read(n)) for n in recipe_format.sources(recipe)}
            self.recipes[stored] = renamed_constants(recipe, read)
        return stored

    def put_view(self, name: str, value: torch.Tensor, recipe: Mapping[str, Any] | None) -> str:
        """Stores a network's constant, which is a view of what is stored."""
        follows = self._follows(name, recipe)
        return self._store.put(name, value, any_shape=True, follows=follows)

    def _follows(self, name: str, recipe: Mapping[str, Any] | None) -> str:
        """A text for what a constant follows from."""
        if recipe is None:
            return name if name in self._weights else ""
        return json.dumps(recipe, sort_keys=True)

    def _read(self, name: str) -> torch.Tensor:
        return attribute(self._module, name)


def _source(passed: Passed, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    return inputs[passed.name] if passed.kind == "input" else outputs[passed.name]


def _aten(segment: PlannedSegment, derived: _Derived) -> dict[str, Any]:
    module = segment.graph_module
    symbols = Symbols.of(module)

    def dim_of(size: torch.SymInt) -> Dim | None:
        try:
            return symbols.dim(size)
        except UnknownSymbolError:
            return None

    graph = encode(module, segment.inputs, dim_of)
    names = {
        str(n.target): derived.put(str(n.target), attribute(module, str(n.target)))
        for n in module.graph.nodes
        if n.op == "get_attr" and not is_graph(n)
    }
    renamed: dict[str, Any] = renamed_constants(graph, names)
    return renamed


def _read_by_recipes(done: ConvertedSegment) -> list[str]:
    """The stored tensors that are needed to derive a segment's constants again."""
    recipes = [c.recipe for c in done.network.constants.values() if c.recipe is not None]
    return list(dict.fromkeys(name for r in recipes for name in recipe_format.sources(r)))


def _stored(done: ConvertedSegment, derived: _Derived, sources: Mapping[str, str]) -> Network:
    """The network with its constants under the names they are stored by."""
    recipes = {c.data: c.recipe for c in done.network.constants.values()}
    names = {
        name: derived.put_view(name, value, recipes.get(name))
        for name, value in done.constants.items()
    }
    read = {**names, **sources}
    return replace(
        done.network,
        constants={
            key: replace(c, data=names[c.data], recipe=renamed_constants(c.recipe, read))
            for key, c in done.network.constants.items()
        },
    )


def _output(output: int | dict[str, Any], results: list[str], symbols: Symbols) -> program.Output:
    if isinstance(output, int):
        return results[output]
    if "size" not in output:
        return output
    try:
        return {"size": dims.to_json(symbols.dim(output["size"]))}
    except UnknownSymbolError as error:
        raise CompileError(
            f"the model answers the size {error.symbol}, which no input's shape tells",
            hint="answer the tensor itself, and read its size from it",
        ) from error
