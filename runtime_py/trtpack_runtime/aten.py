# SPDX-License-Identifier: Apache-2.0
"""ATen graphs as plain JSON: what a program runs in PyTorch, whichever torch wrote it.

    {"schema": "trtpack.aten/1", "inputs": ["a"], "outputs": ["b"], "nodes": [
        {"name": "b", "op": "aten.add.Tensor", "kwargs": {},
         "args": [{"value": "a"}, {"constant": "fc.bias"}]}]}

An argument is a JSON literal or one of ``{"value": name}``, ``{"constant": stored name}``,
``{"list": [...]}``, ``{"device": true}`` (the module's device), a literal of ``aten_literals.py``,
or a size expression over the inputs (``dims.py``). ``getitem`` takes one result of an operator that
has several. ``cond`` takes a condition, ``{"graph": ...}`` for true and for false, and the list of
both graphs' inputs. Sizes that only the data tells (``unique``) are nodes: ``aten.sym_size.int``
and ``sym.*`` arithmetic.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import fx

from . import aten_literals, dims
from .aten_literals import COND, SYMBOLIC_NAMES, UNKNOWN, operator_named
from .dims import Dim
from .errors import BundleError, CompileError
from .schemas import every_node, lacking

__all__ = ["SCHEMA", "decode", "encode", "needs_newer_torch", "operators"]

SCHEMA = "trtpack.aten/1"

DimOf = Callable[[torch.SymInt], "Dim | None"]
"""The expression of a symbolic size over the graph's placeholders; None if no input tells it."""

_SIZE_OPS: Mapping[str, Callable[..., Any]] = {
    "//": operator.floordiv,
    "%": operator.mod,
    "min": torch.sym_min,
    "max": torch.sym_max,
}

_STORED_NAME = re.compile(r"[^\"'\\\x00-\x1f]+")


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


def decode(
    graph: Mapping[str, Any],
    constants: Mapping[str, torch.Tensor],
    device: torch.device | str = "cpu",
) -> fx.GraphModule:
    """The graph as a module that takes the inputs in order and returns a tuple.

    Constants are registered under their stored names, parameters as parameters and everything else
    as buffers; they are the tensors given, never copies.

    Raises:
        BundleError: a malformed graph, an operator this PyTorch lacks, or a missing constant.
    """
    if graph.get("schema") != SCHEMA:
        raise BundleError(
            f"cannot read an ATen graph of format {graph.get('schema')!r}, "
            f"this runtime reads {SCHEMA!r}",
            hint="update trtpack-runtime on this device",
        )
    try:
        return _Decoder(graph, constants, torch.device(device)).run()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BundleError(
            f"malformed ATen graph: {type(error).__name__}: {error}", hint="build the bundle again"
        ) from error


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
        if node.target in SYMBOLIC_NAMES:
            return SYMBOLIC_NAMES[node.target]
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
        encoded = aten_literals.to_json(value)
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

    def _refused(self, node: fx.Node, reason: str) -> CompileError:
        return CompileError(
            f"cannot store {node.format_node() or node.name}: {reason}",
            hint="rewrite this part of the model with ordinary tensor operators",
        )


class _Carriers(dict[str, str]):
    """The names under which a graph of a ``cond`` is given the tensors that sizes are read from."""

    def __init__(self, names: dict[str, str]) -> None:
        self._carriers = names

    def __missing__(self, name: str) -> str:
        return self._carriers.setdefault(name, f"size.{name}")


class _Decoder:
    def __init__(
        self,
        graph: Mapping[str, Any],
        constants: Mapping[str, torch.Tensor],
        device: torch.device,
    ) -> None:
        self.source, self.constants, self.device = graph, constants, device
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.attributes: dict[str, fx.Node] = {}
        self.sizes: dict[Any, Any] = {}

    def run(self) -> fx.GraphModule:
        inputs: set[str] = set()
        for name in self.source["inputs"]:
            self._define(name, self.graph.placeholder(_identifier(name, inputs)))
        for node in self.source["nodes"]:
            function = operator_named(node["op"])
            args = tuple(self._value(arg) for arg in node["args"])
            kwargs = {str(k): self._value(v) for k, v in node["kwargs"].items()}
            hint = re.sub(r"\W", "_", node["name"])
            self._define(
                node["name"], self.graph.create_node("call_function", function, args, kwargs, hint)
            )
        outputs = self.source["outputs"]
        self.graph.output(
            tuple(self.values[o] if isinstance(o, str) else self._value(o) for o in outputs)
        )
        return fx.GraphModule(self.root, self.graph, "AtenSegment")

    def _define(self, name: str, node: fx.Node) -> None:
        if name in self.values:
            raise ValueError(f"value {name!r} is defined twice")
        self.values[name] = node

    def _value(self, value: Any) -> Any:
        match value:
            case {"value": str(name)}:
                return self.values[name]
            case {"constant": str(name)}:
                return self._constant(name)
            case {"list": list(items)}:
                return [self._value(item) for item in items]
            case {"graph": dict(graph)}:
                return self._graph(graph)
            case {"device": True}:
                return self.device
            case {"dim": _} | {"op": _}:
                return self._size(dims.from_json(value))
            case dict():
                return aten_literals.from_json(value)
            case None | bool() | int() | float() | str():
                return value
        raise ValueError(f"not an argument: {value!r}")

    def _graph(self, graph: Mapping[str, Any]) -> fx.Node:
        name = f"graph_{len(self.root._modules)}"
        self.root.add_module(name, _Decoder(graph, self.constants, self.device).run())
        return self.graph.get_attr(name)

    def _constant(self, name: str) -> fx.Node:
        if name not in self.attributes:
            if name not in self.constants:
                raise BundleError(
                    f"a PyTorch segment needs the weight {name!r}, which the bundle lacks",
                    hint="build the bundle again",
                )
            _register(self.root, name, self.constants[name])
            self.attributes[name] = self.graph.get_attr(name)
        return self.attributes[name]

    def _size(self, size: Dim) -> Any:
        """Nodes that compute a size from the inputs' shapes, each shape read once."""
        if isinstance(size, int):
            return size
        if size not in self.sizes:
            parts = [self._monomial(atoms, count) for atoms, count in size.terms]
            self.sizes[size] = reduce(partial(self._call, operator.add), parts)
        return self.sizes[size]

    def _monomial(self, atoms: tuple[dims.Atom, ...], count: int) -> Any:
        factors = [self._atom(atom) for atom in atoms]
        if count != 1 or not factors:
            factors.append(count)
        return reduce(partial(self._call, operator.mul), factors)

    def _atom(self, atom: dims.Atom) -> Any:
        if atom not in self.sizes:
            if atom.op == "dim":
                name, axis = atom.args
                made = self._call(torch.ops.aten.sym_size.int, self.values[name], axis)
            else:
                made = self._call(_SIZE_OPS[atom.op], *(self._size(arg) for arg in atom.args))
            self.sizes[atom] = made
        return self.sizes[atom]

    def _call(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        return self.graph.call_function(function, args)


def _register(root: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    if not _STORED_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a weight")
    *path, last = name.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        child = module._modules[part]
        assert child is not None
        module = child
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)


def _identifier(name: str, taken: set[str]) -> str:
    """``name`` as a Python identifier: graphs are run as generated code."""
    base = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not base.isidentifier() or keyword.iskeyword(base):
        base = f"_{base}"
    candidate, n = base, 0
    while candidate in taken:
        n += 1
        candidate = f"{base}_{n}"
    taken.add(candidate)
    return candidate
