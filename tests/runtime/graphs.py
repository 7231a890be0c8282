# SPDX-License-Identifier: Apache-2.0
"""Stored ATen graphs of small modules, made the way the packager makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._sympy.functions import FloorDiv

from trtpack import aten_encoding
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim


def exported(
    module: torch.nn.Module, args: tuple[Any, ...], dynamic: Any = None
) -> tuple[fx.GraphModule, dict[str, torch.Tensor]]:
    """The functional graph with parameters as ``get_attr`` nodes, and the constants by name."""
    program = torch.export.export(module.eval(), args, dynamic_shapes=dynamic)
    return with_attributes(program.run_decompositions({}))


def with_attributes(program: ExportedProgram) -> tuple[fx.GraphModule, dict[str, torch.Tensor]]:
    """A program's graph with parameter placeholders turned into ``get_attr`` nodes."""
    constants: dict[str, torch.Tensor] = {}
    graph = program.graph_module.graph
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    root = program.graph_module
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        node = placeholders[spec.arg.name]
        if not node.users:
            graph.erase_node(node)
            continue
        target = str(spec.target)
        value = program.state_dict.get(target, program.constants.get(target))
        assert isinstance(value, torch.Tensor)
        constants[target] = value
        _attach(root, target, value)
        with graph.inserting_before(node):
            attribute = graph.get_attr(target)
        attribute.meta = dict(node.meta)
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    root.recompile()
    return root, constants


def stored(
    module: torch.nn.Module, args: tuple[Any, ...], dynamic: Any = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The stored graph of a module and its constants; inputs are called ``x0``, ``x1``, ..."""
    graph_module, constants = exported(module, args, dynamic)
    count = sum(node.op == "placeholder" for node in graph_module.graph.nodes)
    names = [f"x{i}" for i in range(count)]
    return aten_encoding.encode(graph_module, names, dim_of(graph_module)), constants


def dim_of(graph_module: fx.GraphModule) -> aten_encoding.DimOf:
    """Symbolic sizes as expressions over the placeholders."""
    known: dict[sympy.Symbol, Dim] = {}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            for axis, size in enumerate(node.meta["val"].shape):
                if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                    known.setdefault(size.node.expr, dims.dim(node.name, axis))
    return lambda size: _walk(size.node.expr, known)


def _walk(expression: Any, known: Mapping[sympy.Symbol, Dim]) -> Dim | None:
    if isinstance(expression, sympy.Integer):
        return int(expression)
    if isinstance(expression, sympy.Symbol):
        return known.get(expression)
    parts = [_walk(part, known) for part in expression.args]
    first = parts[0]
    if first is None:
        return None
    for part in parts[1:]:
        if part is None:
            return None
        if isinstance(expression, sympy.Add):
            first = dims.add(first, part)
        elif isinstance(expression, sympy.Mul):
            first = dims.mul(first, part)
        elif isinstance(expression, FloorDiv):
            first = dims.floordiv(first, part)
        else:
            return None
    return first


def _attach(root: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = getattr(root, part)
    if isinstance(value, torch.nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)
