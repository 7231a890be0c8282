# SPDX-License-Identifier: Apache-2.0
"""Computes in float32 what the model computes in float64, which no TensorRT does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtpack.capture import constant_of, returned
from trtpack_runtime import recipes as recipe_format

from .graph import Recipes, add_constant, insert

aten = torch.ops.aten
_LARGEST = torch.finfo(torch.float32).max


def narrow_doubles(graph: fx.Graph, recipes: Recipes) -> int:
    """Make every operator that reads or answers float64 one of float32.

    Inputs, outputs and state keep their type: a cast stands behind such an input and before such
    an output.

    Needs:   constants folded, in the precision they are written in.
    Keeps:   the whole graph where a number is beyond float32, or where an operator is no ATen
             operator, reads bits, or is complex: what those answer need not follow.
    Returns: how many operators it narrowed.
    """
    calls = [n for n in graph.nodes if n.op == "call_function" and _is_double(n)]
    if not calls or not all(map(_may_be_narrow, calls)):
        return 0
    doubles = [n for n in returned(graph) if n in calls and n.meta["val"].dtype == torch.float64]
    for node in _read(calls):
        narrow = _narrow_constant if constant_of(node) is not None else _narrow_input
        replacement = narrow(graph, node, recipes)
        for user in [u for u in node.users if u in calls]:
            user.replace_input_with(node, replacement)
    for node in calls:
        node.args = tuple(_mapped(list(node.args), _narrow_type))
        node.kwargs = {k: _mapped(v, _narrow_type) for k, v in node.kwargs.items()}
        node.meta["val"] = _mapped(node.meta["val"], _narrow_value)
    output = graph.output_node()
    for node in dict.fromkeys(doubles):
        with graph.inserting_before(output):
            widened = insert(graph, node, aten._to_copy.default, node, dtype=torch.float64)
        output.replace_input_with(node, widened)
    return len(calls)


def _read(calls: list[fx.Node]) -> list[fx.Node]:
    """The float64 inputs and constants that the calls read."""
    arguments = dict.fromkeys(a for call in calls for a in call.all_input_nodes)
    return [a for a in arguments if a.op != "call_function" and _has_double(a.meta.get("val"))]


def _narrow_input(graph: fx.Graph, node: fx.Node, recipes: Recipes) -> fx.Node:
    first = next(n for n in graph.nodes if n.op not in ("placeholder", "get_attr"))
    with graph.inserting_before(first):
        return insert(graph, node, aten._to_copy.default, node, dtype=torch.float32)


def _narrow_constant(graph: fx.Graph, node: fx.Node, recipes: Recipes) -> fx.Node:
    name, value = str(node.target), constant_of(node)
    assert value is not None
    narrowed = add_constant(graph, f"{name}|float32", value.float())
    module = graph.owning_module
    assert module is not None
    if name in recipes or name in module.meta.get("weights", ()):
        made_of = recipes.get(name, {"constant": name})
        to_float = {"dtype": torch.float32}
        recipes[narrowed] = recipe_format.call(aten._to_copy.default, [made_of], to_float)
    with graph.inserting_before(node):
        attribute = graph.get_attr(narrowed)
    attribute.meta = {**node.meta, "val": _narrow_value(node.meta["val"])}
    return attribute


def _is_double(node: fx.Node) -> bool:
    values = [node.meta.get("val"), *(a.meta.get("val") for a in node.all_input_nodes)]
    return any(map(_has_double, values))


def _has_double(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_double, value))
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128)


def _may_be_narrow(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)
    if node.target.namespace != "aten" or node.target is aten.view.dtype:
        return False
    values = [node.meta.get("val"), *(a.meta.get("val") for a in node.all_input_nodes)]
    if any(isinstance(v, torch.Tensor) and v.is_complex() for v in values):
        return False
    constants = (constant_of(argument) for argument in node.all_input_nodes)
    fits = all(_fits(value) for value in constants if value is not None)
    numbers = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, float)]
    return fits and all(abs(n) <= _LARGEST for n in numbers if math.isfinite(n))


def _fits(value: torch.Tensor) -> bool:
    """Whether every finite number of a tensor is one of float32."""
    finite = value[torch.isfinite(value)] if value.dtype == torch.float64 else value[:0]
    return finite.numel() == 0 or bool(finite.abs().max() <= _LARGEST)


def _narrow_type(value: Any) -> Any:
    return torch.float32 if value is torch.float64 else value


def _narrow_value(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
        return value.to(torch.float32)
    return value


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return change(value)
