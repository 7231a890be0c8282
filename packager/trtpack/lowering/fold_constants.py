# SPDX-License-Identifier: Apache-2.0
"""Evaluates everything that reads no input."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtpack.capture import constant_of
from trtpack_runtime import recipes as recipe_format

from .graph import Recipes, add_constant

LARGE_BYTES = 1 << 20
"""A result above this is stored only if it is not much larger than what it was made of."""


def fold_constants(graph: fx.Graph, recipes: Recipes) -> int:
    """Replace operators over constants by their value, with the recipe that replays it.

    Needs:   a functional graph.
    Keeps:   random operators, operators over symbolic sizes, and results that would store much
             more than they are made of (an expanded mask, say).
    Returns: how many operators it evaluated.
    """
    values: dict[fx.Node, Any] = {}
    known: dict[fx.Node, Any] = {}
    folded: list[fx.Node] = []
    learned: set[fx.Node] = set()  # what follows from a parameter or buffer; the rest are tables
    assert graph.owning_module is not None
    weights: frozenset[str] = graph.owning_module.meta.get("weights", frozenset())
    for node in graph.nodes:
        constant = constant_of(node)
        if constant is not None:
            values[node] = constant
            name = str(node.target)
            known[node] = recipes.get(name, {"constant": name})
            if name in weights or name in recipes:
                learned.add(node)
        elif node.op == "call_function" and _foldable(node, values):
            with torch.no_grad():
                result = _evaluate(node, values)
            if _worth_storing(node, result, values):
                values[node] = result
                folded.append(node)
                if any(argument in learned for argument in node.all_input_nodes):
                    learned.add(node)
                    _name_tables(graph, node, values, known)
                    known[node] = _recipe(node, known)
    for node in folded:
        if isinstance(values[node], torch.Tensor) and any(u not in values for u in node.users):
            _replace(graph, node, values[node], known.get(node), recipes)
    return len(folded)


def _name_tables(
    graph: fx.Graph, node: fx.Node, values: dict[fx.Node, Any], known: dict[fx.Node, Any]
) -> None:
    """Attaches the folded arguments that follow from no weight, so that a recipe can name them.

    Written out as operators they would stand in it once for every use.
    """
    for argument in node.all_input_nodes:
        if argument not in known and isinstance(values[argument], torch.Tensor):
            name = add_constant(graph, f"table|{argument.name}", values[argument].contiguous())
            known[argument] = {"constant": name}


def _foldable(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    if node.target is not operator.getitem and not isinstance(node.target, OpOverload):
        return False
    if isinstance(node.target, OpOverload) and (
        torch.Tag.nondeterministic_seeded in node.target.tags
        or node.target._schema.is_mutable
        or node.target.namespace != "aten"
    ):
        return False
    if not all(argument in values for argument in node.all_input_nodes):
        return False
    return not _has_symbols(node.args) and not _has_symbols(list(node.kwargs.values()))


def _has_symbols(values: Any) -> bool:
    if isinstance(values, list | tuple):
        return any(_has_symbols(v) for v in values)
    return isinstance(values, torch.SymInt | torch.SymFloat | torch.SymBool)


def _evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _worth_storing(node: fx.Node, result: Any, values: dict[fx.Node, Any]) -> bool:
    if not isinstance(result, torch.Tensor):
        return True
    made_of = sum(
        v.untyped_storage().nbytes()
        for v in (values[n] for n in node.all_input_nodes)
        if isinstance(v, torch.Tensor)
    )
    size = result.numel() * result.element_size()
    return size <= max(LARGE_BYTES, 2 * made_of)


def _recipe(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        source, index = node.args
        return recipe_format.item(known[source], index)  # type: ignore[index,arg-type]  # a node and a number
    args, kwargs = fx.map_arg((list(node.args), dict(node.kwargs)), known.__getitem__)
    return recipe_format.call(node.target, args, kwargs)


def _replace(
    graph: fx.Graph, node: fx.Node, value: torch.Tensor, recipe: Any, recipes: Recipes
) -> None:
    read = recipe_format.sources(recipe) if recipe is not None else []
    owner = node.meta.get("constant_owner") or (read[0] if read else "constant")
    use = node.meta.get("constant_use") or node.name
    name = add_constant(graph, f"{owner}|{use}", _apart(value))
    if read:
        recipes[name] = recipe
    with graph.inserting_before(node):
        attribute = graph.get_attr(name)
    attribute.meta = {"val": node.meta["val"]}
    for key in ("nn_module_stack", "stack_trace"):
        if key in node.meta:
            attribute.meta[key] = node.meta[key]
    node.replace_all_uses_with(attribute)


def _apart(value: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor with an address of its own, by which TensorRT tells weights apart."""
    value = value.contiguous()
    begins = value.storage_offset() == 0 and value.nbytes < value.untyped_storage().nbytes()
    return value.clone() if begins else value
