# SPDX-License-Identifier: Apache-2.0
"""Writes ATen graphs as plain JSON, the form that ``trtpack_runtime.aten`` describes and reads."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from trtpack_runtime import dims
from trtpack_runtime.aten import SCHEMA
from trtpack_runtime.aten_literals import COND, SYMBOLIC
from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.errors import CompileError

from .node_places import where
from .schemas import every_node, lacking

__all__ = ["DimOf", "encode", "literal", "needs_newer_torch", "operators"]

DimOf = Callable[[torch.SymInt], "Dim | None"]
"""The expression of a symbolic size over the graph's placeholders; None if no input tells it."""

_SYMBOLIC_NAMES: Mapping[Any, str] = {function: name for name, function in SYMBOLIC.items()}

UNKNOWN = object()
"""What ``literal`` answers for a value that is none."""


def encode(
    graph_module: fx.GraphModule, inputs: Sequence[str], dim_of: DimOf | None = None
) -> dict[str, Any]:
    """A functional graph of operator overloads as JSON.

    ``inputs`` renames the placeholders, in order; ``get_attr`` targets are stored tensors' names.
    ``dim_of`` answers symbolic sizes over the placeholders' own names.

    Raises:
        CompileError: a node that is no operator overload, or an argument the format cannot hold.
    """
    return _Encoder(graph_module, inputs, dim_of or (lambda size: None)).run()


def needs_newer_torch(graph: Mapping[str, Any]) -> list[str]:
    """``["torch>=2.13"]``, the release that wrote it, if the graph cannot run on the oldest PyTorch
    a device may have, else an empty list; ``schemas.lacking`` says why."""
    if not lacking(graph):
        return []
    return [f"torch>={'.'.join(torch.__version__.split('.')[:2])}"]


def operators(graph: Mapping[str, Any]) -> dict[str, int]:
    """How often each operator occurs, in order of first use; needs no operator to exist here."""
    counts: dict[str, int] = {}
    for node in every_node(graph):
        if node["op"] not in ("getitem", "cond") and not node["op"].startswith("sym."):
            counts[node["op"]] = counts.get(node["op"], 0) + 1
    return counts


def literal(value: Any) -> Any:
    """A literal argument as JSON, or ``UNKNOWN``."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case complex():
            return {"complex": [literal(value.real), literal(value.imag)]}
        case torch.device():
            return {"device": True}
        case torch.memory_format() | torch.layout():
            kind = "layout" if isinstance(value, torch.layout) else "memory_format"
            return {kind: str(value).removeprefix("torch.")}
        case torch.dtype():
            name = str(value).removeprefix("torch.")
            try:
                return {"dtype": by_torch(value).name}
            except KeyError:
                return {"dtype": name}
    return UNKNOWN


class _Encoder:
    def __init__(self, graph_module: fx.GraphModule, inputs: Sequence[str], dim_of: DimOf) -> None:
        self.graph_module, self.dim_of = graph_module, dim_of
        placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder"]
        if len(placeholders) != len(inputs):
            raise ValueError(f"{len(placeholders)} placeholders, {len(inputs)} input names")
        self.inputs = list(inputs)
        self.renamed = {n.name: name for n, name in zip(placeholders, inputs, strict=True)}
        self.names: dict[fx.Node, str] = {n: self.renamed[n.name] for n in placeholders}
        self.sizes: dict[fx.Node, Any] = {}
        self.nodes: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        for node in self.graph_module.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op not in ("placeholder", "get_attr", "output"):
                raise self._refused(node, f"a {node.op} node is no operator")
        (returned,) = self.graph_module.graph.output_node().args
        returned = returned if isinstance(returned, tuple | list) else (returned,)
        outputs = [self._output(value) for value in returned]
        shell = {"schema": SCHEMA, "inputs": self.inputs, "outputs": outputs}
        return {**shell, "nodes": self.nodes}

    def _call(self, node: fx.Node) -> None:
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt):
            known = self.dim_of(size)
            if known is not None:
                self.sizes[node] = self._dim(known)
                return
        name = self._unique(node.name)
        if node.target is COND:
            op, args = "cond", self._conditional(node)
        else:
            op, args = self._operator(node), [self._value(arg, node) for arg in node.args]
        kwargs = {k: self._value(v, node) for k, v in node.kwargs.items()}
        self.nodes.append({"name": name, "op": op, "args": args, "kwargs": kwargs})
        self.names[node] = name

    def _conditional(self, node: fx.Node) -> list[Any]:
        """The condition, both graphs and their inputs: operands, then what sizes are read from."""
        condition, then, otherwise, operands = node.args
        assert isinstance(operands, tuple | list)
        carriers: dict[str, str] = {}
        graphs = []
        for argument in (then, otherwise):
            assert isinstance(argument, fx.Node)
            inner = getattr(self.graph_module, str(argument.target))
            names = [n.name for n in inner.graph.find_nodes(op="placeholder")]
            encoder = _Encoder(inner, names, self.dim_of)
            encoder.renamed = _Carriers(carriers)
            graphs.append(encoder.run())
        for graph in graphs:
            graph["inputs"] = [*graph["inputs"], *carriers.values()]
        given = [self._value(operand, node) for operand in operands]
        given += [{"value": self.renamed[name]} for name in carriers]
        return [self._value(condition, node), *({"graph": g} for g in graphs), {"list": given}]

    def _operator(self, node: fx.Node) -> str:
        if node.target is operator.getitem:
            return "getitem"
        if isinstance(node.target, torch._ops.OpOverload):
            return str(node.target)
        if node.target in _SYMBOLIC_NAMES:
            return _SYMBOLIC_NAMES[node.target]
        raise self._refused(node, f"{node.target} is no operator overload")

    def _output(self, value: Any) -> Any:
        if isinstance(value, fx.Node) and value in self.names:
            return self.names[value]
        if isinstance(value, fx.Node) and value.op == "get_attr":
            return {"constant": str(value.target)}
        raise CompileError(
            f"a PyTorch segment returns {value!r}, which is no tensor",
            hint="report this model, only tensors may cross segment borders",
        )

    def _value(self, value: Any, user: fx.Node) -> Any:
        if isinstance(value, fx.Node):
            return self._reference(value, user)
        if isinstance(value, torch.SymInt):
            known = self.dim_of(value)
            if known is None:
                raise self._refused(user, f"size {value} is not told by any input's shape")
            return self._dim(known)
        if isinstance(value, tuple | list):
            return {"list": [self._value(item, user) for item in value]}
        if isinstance(value, torch.SymFloat | torch.SymBool):
            raise self._number(user)
        encoded = literal(value)
        if encoded is UNKNOWN:
            raise self._refused(user, f"argument {value!r} of type {type(value).__name__}")
        return encoded

    def _reference(self, node: fx.Node, user: fx.Node) -> Any:
        if node in self.sizes:
            return self.sizes[node]
        if node in self.names:
            return {"value": self.names[node]}
        target: Any = self.graph_module
        for part in str(node.target).split("."):
            target = getattr(target, part)
        if not isinstance(target, torch.Tensor):
            raise self._refused(user, f"argument {node.target} is a {type(target).__name__}")
        return {"constant": str(node.target)}

    def _dim(self, size: Dim) -> Any:
        return dims.to_json(
            dims.substitute(size, lambda name, axis: dims.dim(self.renamed[name], axis))
        )

    def _unique(self, name: str) -> str:
        taken = {*self.inputs, *self.names.values()}
        candidate, n = name, 0
        while candidate in taken:
            n += 1
            candidate = f"{name}_{n}"
        return candidate

    def _number(self, node: fx.Node) -> CompileError:
        reason = "it computes with a number that only the data tells"
        return self._refused(node, reason, "keep it a tensor, without .item() or float()")

    def _refused(
        self,
        node: fx.Node,
        reason: str,
        hint: str = "rewrite this part of the model with ordinary tensor operators",
    ) -> CompileError:
        return CompileError(f"cannot store {node.target} at {where(node)}: {reason}", hint=hint)


class _Carriers(dict[str, str]):
    """The names under which a graph of a ``cond`` is given the tensors that sizes are read from."""

    def __init__(self, names: dict[str, str]) -> None:
        self._carriers = names

    def __missing__(self, name: str) -> str:
        return self._carriers.setdefault(name, f"size.{name}")
