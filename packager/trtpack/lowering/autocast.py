# SPDX-License-Identifier: Apache-2.0
"""Gives every operator the type that the precision plan has for it."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from trtpack.capture import constant_of
from trtpack.node_places import module_path, where
from trtpack.precision.deciding import decide, mask_of, own_type
from trtpack.precision.plan import NAMES, Decisions, PrecisionPlan, Request, Row
from trtpack.precision.ranges import Range, floats, measure
from trtpack.precision.rules import need
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE
from trtpack_runtime import recipes as recipe_format

from .graph import Recipes, add_constant, insert

aten = torch.ops.aten
_SMALL = (torch.float16, torch.bfloat16)


def autocast(graph: fx.Graph, recipes: Recipes) -> int:
    """Make operators compute in the types asked for, with casts where values of others meet.

    The module's ``meta["precision"]`` asks; ``meta["plan"]`` gets the plan, ``meta["uncast"]`` the
    graph as it was. A cast down stands behind what makes the value, one up before what reads it,
    one for all readers: what crosses a segment's border is small. Constants are cast once. Inputs,
    outputs and state keep their type.

    Needs:   all other passes done; rules go by whole operators.
    Keeps:   operators that no rule knows, integers, float64, and a model that is half already.
    Returns: how many casts it added, those of constants left out.
    """
    module = graph.owning_module
    assert module is not None
    request: Request | None = module.meta.get("precision")
    if request is None:
        return 0
    ranges: dict[str, Range] = module.meta.get("ranges", {})
    if request.small is not None and not ranges:
        ranges = measure(module, request.samples, request.small)
    decided = decide(graph, request, ranges)
    module.meta["uncast"] = copied(module)
    module.meta["uncast"].meta |= {
        "ranges": ranges,
        "weights": module.meta.get("weights", frozenset()),
    }
    casts = _Casting(graph, recipes, decided).run()
    pins = tuple(map(str, request.pins))
    module.meta["plan"] = PrecisionPlan(
        request.precision,
        pins,
        rows(graph, decided),
        tuple(decided.findings),
        casts,
        len(request.samples) if ranges else 0,
    )
    return casts


def rows(graph: fx.Graph, decided: Decisions | None = None) -> tuple[Row, ...]:
    """The plan's table: what computes with floating-point numbers, casts left out."""
    found = []
    for node in graph.nodes:
        if node.op != "call_function" or node.target in (operator.getitem, aten._to_copy.default):
            continue
        choice = decided.choices.get(node) if decided is not None else None
        dtype = own_type(node) if choice is None else choice.dtype
        if dtype is None or node.target in (FAKE_QUANTIZE, DEQUANTIZE):
            continue
        if few := _few(node):
            found.append(Row(node.name, module_path(node), str(node.target), *few, where(node)))
            continue
        precision = choice.precision if choice is not None else NAMES.get(dtype, str(dtype))
        why = choice.why if choice is not None else "as the model has it"
        found.append(
            Row(node.name, module_path(node), str(node.target), precision, why, where(node))
        )
    return tuple(found)


def _few(node: fx.Node) -> tuple[str, str] | None:
    """The quantized type that a product reads, and how it comes to it; None for any other node."""
    kinds = {
        str(source.args[3]).lower(): source.target
        for source in node.all_input_nodes
        if source.target in (FAKE_QUANTIZE, DEQUANTIZE)
    }
    if not kinds or need(node)[0] != "product":
        return None
    stored = all(target is DEQUANTIZE for target in kinds.values())
    return "+".join(sorted(kinds)), "its weights are stored so" if stored else "it reads such"


def retyped(uncast: fx.GraphModule, request: Request) -> fx.GraphModule:
    """The graph before ``autocast`` in other types; ranges are not measured again."""
    module = copied(uncast)
    module.meta |= {**uncast.meta, "precision": request}
    autocast(module.graph, {})
    module.graph.eliminate_dead_code()
    return module


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own, of the same nodes and tensors, by the same names."""
    graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
    with warnings.catch_warnings():
        # sizes are written as SymInts on purpose, see inline_sizes
        warnings.filterwarnings("ignore", message="Raw SymInt value")
        graph.output(graph.graph_copy(module.graph, made))
        for node, copy in made.items():
            copy.name = node.name  # fx numbers what Python has a function of, such as input
        return fx.GraphModule(module, graph)


class _Casting:
    def __init__(self, graph: fx.Graph, recipes: Recipes, decided: Decisions) -> None:
        self.graph, self.recipes, self.decided = graph, recipes, decided
        self.before: dict[fx.Node, Any] = {n: n.meta.get("val") for n in graph.nodes}
        self.cast: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
        self.added = 0

    def run(self) -> int:
        for node in list(self.graph.nodes):
            if node.target is operator.getitem:
                source, index = node.args
                node.meta["val"] = source.meta["val"][index]
            elif node.op in ("call_function", "output"):
                self._node(node)
        return self.added

    def _node(self, node: fx.Node) -> None:
        choice = self.decided.choices.get(node)
        for source in node.all_input_nodes:
            wanted = self._wanted(node, source)
            if wanted is None:
                continue
            value = source
            if choice is not None and choice.wide_sums:
                value = self._typed(source, choice.dtype, node)
                value = self._inserted(value, torch.float32, node.prepend, again=True)
            elif _dtype(source) != wanted:
                value = self._typed(source, wanted, node)
            if value is not source:
                node.replace_input_with(source, value)
        if choice is not None and node.target is DEQUANTIZE:
            node.update_arg(4, choice.dtype)
            node.meta["val"] = node.meta["val"].to(choice.dtype)
        elif choice is not None and not _forced(node):
            computed = torch.float32 if choice.wide_sums else choice.dtype
            node.meta["val"] = _mapped(node.meta["val"], computed)
            if choice.wide_sums:
                self._round_answer(node, choice.dtype)

    def _wanted(self, node: fx.Node, source: fx.Node) -> torch.dtype | None:
        """The type in which a node reads a value; None for values of no type to choose, and for
        scales, which keep all their bits."""
        quantizes = node.target in (FAKE_QUANTIZE, DEQUANTIZE)
        if _dtype(source) is None or (quantizes and source is node.args[1]):
            return None
        choice = self.decided.choices.get(node)
        if choice is not None:
            return choice.dtype
        return next((t.dtype for t in floats(self.before[source])), None)

    def _typed(self, source: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
        """The one twin of a value in another type."""
        have = _dtype(source)
        if have == dtype:
            return source
        if (source, dtype) not in self.cast:
            is_mask = source is mask_of(reader) and dtype in _SMALL
            if constant_of(source) is not None:
                twin = self._constant(source, dtype, is_mask)
            elif have is not None and have.itemsize < dtype.itemsize:
                twin = self._inserted(source, dtype, reader.prepend)
            else:
                value = self._cut(source, dtype, reader) if is_mask else source
                twin = self._inserted(value, dtype, None)
            self.cast[source, dtype] = twin
        return self.cast[source, dtype]

    def _inserted(
        self,
        source: fx.Node,
        dtype: torch.dtype,
        place: Callable[[fx.Node], None] | None,
        again: bool = False,
    ) -> fx.Node:
        if again and (source, dtype) in self.cast:
            return self.cast[source, dtype]
        first = next(n for n in self.graph.nodes if n.op not in ("placeholder", "get_attr"))
        with self.graph.inserting_before(first):
            node = insert(self.graph, source, aten._to_copy.default, source, dtype=dtype)
        if place is not None:
            place(node)
        elif source.op == "call_function":
            source.append(node)
        self.added += 1
        if again:
            self.cast[source, dtype] = node
        return node

    def _constant(self, node: fx.Node, dtype: torch.dtype, is_mask: bool) -> fx.Node:
        name, value = str(node.target), constant_of(node)
        module = self.graph.owning_module
        assert value is not None
        assert module is not None
        short = str(dtype).removeprefix("torch.")
        recipe: Any = self.recipes.get(name, {"constant": name})
        if is_mask:
            largest = torch.finfo(dtype).max
            value = value.clamp(-largest, largest)
            recipe = recipe_format.call(aten.clamp.default, [recipe, -largest, largest], {})
        typed = add_constant(self.graph, f"{name}|{short}", value.to(dtype).contiguous())
        if name in self.recipes or name in module.meta.get("weights", ()):
            to_type = {"dtype": dtype}
            self.recipes[typed] = recipe_format.call(aten._to_copy.default, [recipe], to_type)
        with self.graph.inserting_before(node):
            attribute = self.graph.get_attr(typed)
        attribute.meta = {**node.meta, "val": _mapped(node.meta["val"], dtype)}
        return attribute

    def _cut(self, mask: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
        """A mask without numbers beyond a type: as infinities they would hide whole rows as NaN."""
        largest = torch.finfo(dtype).max
        with self.graph.inserting_before(reader):
            return insert(self.graph, mask, aten.clamp.default, mask, -largest, largest)

    def _round_answer(self, node: fx.Node, dtype: torch.dtype) -> None:
        """Lets all that reads a product summed in float32 read it rounded."""
        users = list(node.users)
        rounded = self._inserted(node, dtype, None)
        for user in users:
            user.replace_input_with(node, rounded)
        self.before[rounded] = self.before[node]


def _dtype(node: fx.Node) -> torch.dtype | None:
    """The type of a node's floating-point result; None where it has none, or is no tensor."""
    value = node.meta.get("val")
    found = constant_of(node) if value is None else value
    if not isinstance(found, torch.Tensor) or not found.dtype.is_floating_point:
        return None
    return found.dtype


def _forced(node: fx.Node) -> bool:
    """Whether an operator is told the type of its answer."""
    return any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))


def _mapped(value: Any, dtype: torch.dtype) -> Any:
    """A described result with its small and float32 numbers in another type."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, dtype) for item in value)
    if isinstance(value, torch.Tensor) and value.dtype in (torch.float32, *_SMALL):
        return value.to(dtype)
    return value
