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
and ``sym.*`` arithmetic. The packager writes them.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from torch import fx

from . import aten_literals, dims
from .aten_literals import operator_named
from .dims import Dim
from .errors import BundleError

__all__ = ["SCHEMA", "decode"]

SCHEMA = "trtpack.aten/1"

_SIZE_OPS: Mapping[str, Callable[..., Any]] = {
    "//": operator.floordiv,
    "%": operator.mod,
    "min": torch.sym_min,
    "max": torch.sym_max,
}

_STORED_NAME = re.compile(r"[^\"'\\\x00-\x1f]+")


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
