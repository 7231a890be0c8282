# SPDX-License-Identifier: Apache-2.0
"""Takes apart a graph that AOTAutograd traced: what an engine computes, and what PyTorch adds.

Such a graph takes parameters, inputs and sizes alike as placeholders, and answers the new values
of changed inputs before the user's outputs. Parameters that it does not change become constants.
Views of its inputs, and views of one another among its outputs, stay views: PyTorch makes them of
what the engine answered, so a caller finds the memory shared that eager execution shares.
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from trtpack.branches import is_graph
from trtpack.capture import Captured
from trtpack.errors import CaptureError
from trtpack.lowering.graph import add_constant
from trtpack.lowering.inline_sizes import SIZES

from .host import move_to_host
from .sizes import Grown, ranges_of

_BY_STRIDES = (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_scatter.default)
"""What ``strided_views`` left: its numbers are others where lowering lays its input out anew."""


@dataclass(frozen=True)
class Argument:
    """An argument of the graph: what to call it, and the tensor that a constant is made of."""

    name: str
    constant: torch.Tensor | None = None


@dataclass(frozen=True)
class Taken:
    """A graph's part for engines, and how its answers are made of theirs.

    ``takes`` are the positions of the arguments that ``captured`` reads, in its order, ``bound``
    those of the arguments that became its constants, by the constant's name. ``captured`` is on the
    CPU, the arguments are where the graph runs. ``rest`` is called with every argument, then with
    what the engines answer, and answers what the graph does; None where that is the same.
    """

    captured: Captured
    takes: tuple[int, ...]
    bound: Mapping[str, int]
    expected: tuple[torch.Tensor, ...]
    rest: fx.GraphModule | None

    @property
    def computes(self) -> bool:
        """Whether anything is left for an engine."""
        return bool(self.expected)


def take(module: fx.GraphModule, arguments: Sequence[Argument], grown: Grown) -> Taken:
    """Takes a graph apart, leaving it as it is.

    ``grown`` are sizes that calls had, for the ranges of those that vary.

    Raises:
        CaptureError: it takes something that is neither tensor nor size, answers a size that only
            the data tells, or reads memory by strides.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    rest = _Rest(module.graph, placeholders)
    graph = fx.Graph()
    holder = fx.GraphModule(torch.nn.Module(), graph)
    graph = holder.graph
    made: dict[fx.Node, Any] = {}
    takes: list[int] = []
    bound: dict[str, int] = {}
    for position, (node, argument) in enumerate(zip(placeholders, arguments, strict=True)):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt | int) or not rest.needed(node):
            continue
        if not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"the graph takes a {type(value).__name__}, and engines take tensors",
                hint="pass it as a tensor",
            )
        if argument.constant is not None:
            name = add_constant(graph, argument.name, argument.constant.detach())
            made[node] = graph.create_node("get_attr", name)
            bound[name] = position
        else:
            made[node] = graph.placeholder(_identifier(argument.name))
            takes.append(position)
        made[node].meta = {"val": value}
    inputs = graph.find_nodes(op="placeholder")
    for node in filter(rest.needed, placeholders):
        if node not in made:
            made[node] = _size(graph, inputs, node.meta["val"])
    for node in filter(rest.needed, module.graph.nodes):
        if node.target in _BY_STRIDES:
            raise CaptureError(
                f"{node.target} reads memory that does not lie as its input is shaped",
                hint="index the tensor instead",
            )
        if node.op == "get_attr":
            _constant(module, node, holder)
        if node.op in ("call_function", "get_attr"):
            made[node] = graph.node_copy(node, made.__getitem__)
            made[node].meta = _tidied(node.meta)
    graph.output(tuple(made[node] for node in rest.results))
    graph.eliminate_dead_code()
    whole = fx.GraphModule(holder, graph)
    move_to_host(whole)
    whole.meta["weights"] = frozenset(bound)
    captured = Captured(
        whole,
        tuple(node.name for node in inputs),
        tuple(range(len(rest.results))),
        (),
        tuple(bound),
        (),
        None,
        None,
        ranges_of(whole, grown),
    )
    expected = tuple(node.meta["val"] for node in rest.results)
    return Taken(captured, tuple(takes), bound, expected, rest.module())


class _Rest:
    """Which values the engines answer (``results``), and the graph that makes the outputs."""

    def __init__(self, graph: fx.Graph, placeholders: Sequence[fx.Node]) -> None:
        (answered,) = graph.output_node().args
        assert isinstance(answered, tuple | list)
        self._outputs, self._placeholders = tuple(answered), tuple(placeholders)
        self.results: list[fx.Node] = []
        nodes = {node for node in self._outputs if isinstance(node, fx.Node)}
        tensors = [n for n in nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        shared: dict[fx.Node, int] = {}
        for node in tensors:
            shared[_root(node)] = shared.get(_root(node), 0) + 1
        for node in filter(nodes.__contains__, graph.nodes):
            root = _root(node)
            if node not in tensors:
                self._add_sized(node)
            elif root.op != "placeholder":
                viewed = shared[root] > 1 or _is_expanded(node.meta["val"])
                self._add(root if viewed and self._follows(node, root) else node)
            elif not self._follows(node, root):
                self._add(node)
        self._needed = _ancestors(self.results)

    def needed(self, node: fx.Node) -> bool:
        """Whether the engines' part reads a value."""
        return node in self._needed

    def module(self) -> fx.GraphModule | None:
        """The graph that makes the outputs of arguments and results; None where it adds nothing."""
        if list(self._outputs) == self.results:
            return None
        graph = fx.Graph()
        made = {node: graph.placeholder(node.name) for node in self._placeholders}
        for number, node in enumerate(self.results):
            made[node] = graph.placeholder(f"result_{number}")

        def copied(node: fx.Node) -> fx.Node:
            if node not in made:
                for argument in node.all_input_nodes:
                    copied(argument)
                made[node] = graph.node_copy(node, made.__getitem__)
            return made[node]

        graph.output(tuple(copied(o) if isinstance(o, fx.Node) else o for o in self._outputs))
        return fx.GraphModule(torch.nn.Module(), graph)

    def _add(self, node: fx.Node) -> None:
        if node not in self.results:
            self.results.append(node)

    def _add_sized(self, node: fx.Node) -> None:
        if not self._follows(node, None):
            raise CaptureError(
                "the graph answers a number that only the data tells",
                hint="answer the tensor itself, and read the number from it",
            )

    def _follows(self, node: fx.Node, root: fx.Node | None) -> bool:
        """Whether a node is made of views and sizes alone, from ``root`` and the arguments."""
        if node.op == "placeholder" or node is root:
            return True
        if node.op != "call_function":
            return False
        if not (_is_view(node) or isinstance(node.meta.get("val"), SIZES)):
            return False
        return all(self._follows(argument, root) for argument in node.all_input_nodes)


def _is_expanded(value: torch.Tensor) -> bool:
    """Whether a tensor has the same memory several times, as no engine answers it."""
    return any(
        isinstance(stride, int) and stride == 0 and size != 1
        for size, stride in zip(value.shape, value.stride(), strict=True)
    )


def _root(node: fx.Node) -> fx.Node:
    """The value that a chain of views begins with."""
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return _is_view(node.all_input_nodes[0])
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _size(graph: fx.Graph, inputs: Sequence[fx.Node], value: int | torch.SymInt) -> Any:
    """A size that the graph takes as an argument, read off the input that has it."""
    if isinstance(value, int) or value.node.expr.is_Integer:
        return int(value)
    for node in inputs:
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and size.node.expr == value.node.expr:
                read = graph.call_function(torch.ops.aten.sym_size.int, (node, axis))
                read.meta = {"val": value}
                return read
    raise CaptureError(
        "the graph computes with a number that varies and is no size of its inputs",
        hint="pass it as a tensor",
    )


def _constant(module: fx.GraphModule, node: fx.Node, holder: fx.GraphModule) -> None:
    """Gives the new graph the tensor or the graph that a ``get_attr`` node reads."""
    name = str(node.target)
    value: Any = operator.attrgetter(name)(module)
    if is_graph(node):
        holder.add_module(name, copy.deepcopy(value))
    elif isinstance(value, torch.Tensor):
        *parents, leaf = name.split(".")
        owner: torch.nn.Module = holder
        for part in parents:
            if not hasattr(owner, part):
                owner.add_module(part, torch.nn.Module())
            owner = getattr(owner, part)
        owner.register_buffer(leaf, value.detach(), persistent=False)


def _identifier(name: str) -> str:
    """A name that a graph's code can have."""
    plain = re.sub(r"\W", "_", name)
    return f"_{plain}" if plain[:1].isdigit() else plain


def _tidied(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a node, with its module's path as the user writes it."""
    stack = meta.get("nn_module_stack") or {}
    paths = {key: (module_name(str(path)), kind) for key, (path, kind) in stack.items()}
    return {**meta, "nn_module_stack": paths}


def module_name(source: str) -> str:
    """``layer1.0`` of ``L['self']._modules['layer1']._modules['0']``, Dynamo's name of it."""
    text = source.partition("]")[2] if source[1:2] == "[" else source
    for sign in ("._modules[", "._parameters[", "._buffers[", "["):
        text = text.replace(sign, ".")
    return text.replace("]", "").replace("'", "").replace('"', "").strip(".")
