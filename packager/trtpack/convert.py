# SPDX-License-Identifier: Apache-2.0
"""Converts one TensorRT segment into a portable network."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from trtpack_runtime import dims
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.engines._weak import rounded
from trtpack_runtime.errors import InternalError, NetworkError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

from .branches import COND, branches, is_graph, operands
from .capture import attribute, returned
from .converters import find
from .converters.bounds import Bounds
from .converters.constants import Constants
from .converters.context import Context
from .converters.node import Refusal, bind_node, described, leaves, tensor
from .converters.refusals import Refused
from .converters.region import Region
from .converters.symbols import Symbols, UnknownSymbolError
from .lowering.inline_sizes import SIZES
from .node_places import module_path, where
from .options import SizeRange
from .target import Target

ROUNDED = (
    "TensorRT 8 computes it in float16 at times in an engine that has float16 besides float32, "
    "whatever it is told"
)
"""Why loops, conditionals and some layers in float32 stay in PyTorch before TensorRT 10."""

Ranges = Mapping[str, SizeRange]
"""The sizes that each size symbol of a graph takes."""


@dataclass(frozen=True)
class Passed:
    """A segment output that is not a layer's: an input, a constant, or another output again."""

    kind: str
    name: str


@dataclass(frozen=True)
class ConvertedSegment:
    """A network and the values of its constants (stored name -> tensor).

    ``outputs`` stands in the order of the graph's outputs: a network output's name, or ``Passed``.
    """

    network: Network
    constants: Mapping[str, torch.Tensor]
    outputs: tuple[str | Passed, ...]


class ConversionError(Exception):
    """Carries the refusal of the node that could not be converted."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.op} at {refusal.where}: {refusal.reason}")
        self.refusal = refusal


def convert(
    graph_module: fx.GraphModule,
    target: Target,
    ranges: Ranges,
    recipes: Mapping[str, dict[str, Any]] | None = None,
    profiles: Sequence[Ranges] = (),
) -> ConvertedSegment:
    """The portable network of a graph whose every node has a converter.

    ``ranges`` gives each size symbol's (min, opt, max), from which the profile follows, and
    ``profiles`` the same for each further profile; ``recipes`` tells how constants that lowering
    derived follow from the parameters.

    Raises:
        ConversionError: a node turned out to be impossible; it carries the reason.
    """
    return _Conversion(graph_module, target, ranges, recipes or {}, profiles).run()


def node_of(layer: str) -> str:
    """The graph node that a network's layer was made for.

    A layer is named after its scope, ``module.path/node``, with a number behind it where a node
    takes several (``module.path/node.2``).
    """
    return layer.rpartition("/")[2].partition(".")[0]


class _Conversion:
    def __init__(
        self,
        graph_module: fx.GraphModule,
        target: Target,
        ranges: Ranges,
        recipes: Mapping[str, dict[str, Any]],
        profiles: Sequence[Ranges],
    ) -> None:
        self.graph_module, self.ranges, self.recipes = graph_module, ranges, recipes
        self.profiles = profiles
        self.placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder"]
        self.symbols = Symbols.of(graph_module)
        self.recorder, self.constants = Recorder(), Constants()
        bounds = Bounds(self._input_shapes(2))
        self.context = Context(target, self.recorder, self.constants, bounds)
        self.values: dict[fx.Node, Any] = {}
        self.scope = ""

    def run(self) -> ConvertedSegment:
        for node in self.placeholders:
            self.values[node] = self.recorder.input(described(node, self.symbols))
        self._nodes()
        outputs = self._outputs()
        names = [name for name in outputs if isinstance(name, str)]
        network = self.recorder.finish(names, self._profiles())
        self._hold(network)
        used = {constant.data for constant in network.constants.values()}
        used.update(p.name for p in outputs if isinstance(p, Passed) and p.kind == "constant")
        return ConvertedSegment(
            network, {k: self.constants.values[k] for k in sorted(used)}, tuple(outputs)
        )

    def _hold(self, network: Network) -> None:
        """Refuses the first node whose layers the target's TensorRT rounds to float16."""
        if self.context.has("10.0"):
            return
        for layer in rounded(network):
            nodes = self.graph_module.graph.nodes
            node = next(n for n in nodes if n.name == node_of(layer.name))
            raise self._refused(node, ROUNDED)

    def _nodes(self) -> None:
        for node in self.graph_module.graph.nodes:
            if node.op == "get_attr" and not is_graph(node):
                self.values[node] = self._constant(node)
            elif node.op != "call_function":
                continue
            elif isinstance(node.meta["val"], SIZES):
                self.symbols.measured(node)
            else:
                self.values[node] = self._call(node)

    def _profiles(self) -> list[Profile]:
        """The profile of the declared ranges, then each further one that differs here."""
        found: list[Profile] = []
        for ranges in (self.ranges, *self.profiles):
            _, profile = signature(self.graph_module, ranges)
            if profile is not None and profile not in found:
                found.append(profile)
        return found

    def _constant(self, node: fx.Node) -> Tensor:
        name = str(node.target)
        value = attribute(self.graph_module, name).detach()
        recipe = self.recipes.get(name)
        stored = self.constants.put(name, value, recipe)
        return self.recorder.constant(
            by_torch(value.dtype).name, tuple(value.shape), stored, recipe
        )

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            assert isinstance(source, fx.Node)
            item = self.values[source][index]
            if item is None and node.users:
                raise self._refused(source, f"TensorRT does not compute its output {index}")
            return item
        found = find(node.target)
        if found is None and node.target is not COND:
            raise self._refused(node, "no converter")
        context, wanted = self.context, leaves(node.meta["val"])
        for value in wanted:
            self.symbols.told_by(node.name, value)
        context.results = tuple(tensor(node.name, value, self.symbols) for value in wanted)
        context.origin = where(node)
        context.scope = self.scope or "/".join(filter(None, (module_path(node), node.name)))
        try:
            if found is None:
                result: Any = self._conditional(node)
            else:
                bound = bind_node(node, self.values.__getitem__, self.symbols)
                result = found.function(context, **bound)
        except (Refused, NetworkError, UnknownSymbolError) as error:
            raise self._refused(node, str(error)) from error
        self._check(node, result)
        self._learn(node, result)
        return result

    def _learn(self, node: fx.Node, result: Any) -> None:
        """The sizes that only a node's data tells are those of the layers that answer it."""
        results = result if isinstance(result, list | tuple) else (result,)
        for have, value in zip(results, leaves(node.meta["val"]), strict=True):
            if have is not None:
                for size, most in self.symbols.learn(value, node.name, have.shape):
                    self.context.bounds.limit(size, most)

    def _conditional(self, node: fx.Node) -> tuple[Tensor, ...]:
        """A ``torch.cond``; layers of its graphs are called like itself."""
        regions = [Region(self.context) for _ in branches(node)]
        networks = [
            self._branch(branch, region, node)
            for branch, region in zip(branches(node), regions, strict=True)
        ]
        ctx, (then, otherwise) = self.context, networks
        condition = ctx.reshape(self.values[node.args[0]], ())  # type: ignore[index]  # a condition is a node
        given = {"condition": condition, "captured": tuple(regions[0].outside) or None}
        made = ctx.add_all("branch", given, {"then": then, "otherwise": otherwise})
        wanted = (result.dtype for result in ctx.results)
        return tuple(
            ctx.as_bytes(value) if dtype == "UINT8" else value
            for value, dtype in zip(made, wanted, strict=True)
        )

    def _branch(self, branch: fx.GraphModule, region: Region, node: fx.Node) -> Network:
        inner = copy.copy(self)
        inner.graph_module, inner.context, inner.values = branch, region.ctx, {}
        inner.scope = self.context.scope
        placeholders = branch.graph.find_nodes(op="placeholder")
        for placeholder, operand in zip(placeholders, operands(node), strict=True):
            if isinstance(operand, fx.Node):
                inner.values[placeholder] = region.bring(self.values[operand])
        inner._nodes()
        return region.finish([inner.values[n] for n in returned(branch.graph)])

    def _check(self, node: fx.Node, result: Any) -> None:
        """A converter that answers another type or shape than PyTorch is a bug of ours."""
        results = result if isinstance(result, list | tuple) else (result,)
        for have, want in zip(results, self.context.results, strict=True):
            if have is not None and (have.dtype != want.dtype or not self._equal(have, want)):
                raise InternalError(f"the converter of {node.target} answers {have}, not {want}")

    def _equal(self, have: Tensor, want: Tensor) -> bool:
        if have.shape == want.shape:
            return True
        if have.rank != want.rank or (have.is_static and want.is_static):
            return False
        return all(
            dims.evaluate(a, lookup) == dims.evaluate(b, lookup)
            for lookup in self._samples()
            for a, b in zip(have.shape, want.shape, strict=True)
            if not (self._is_told_by_data(a) or self._is_told_by_data(b))
        )

    def _is_told_by_data(self, size: dims.Dim) -> bool:
        inputs = {node.name for node in self.placeholders}
        return any(name not in inputs for name, _ in dims.atoms(size))

    def _samples(self) -> list[Any]:
        """Lookups of the inputs' sizes at the minimum, the optimum and the maximum."""
        shapes = [self._input_shapes(i) for i in range(3)]
        return [lambda name, axis, s=sizes: s[name][axis] for sizes in shapes]

    def _input_shapes(self, which: int) -> dict[str, tuple[int, ...]]:
        return {
            node.name: concrete_shape(node.meta["val"].shape, self.ranges, which)
            for node in self.placeholders
        }

    def _outputs(self) -> list[str | Passed]:
        inputs = {node.name for node in self.placeholders}
        outputs: list[str | Passed] = []
        for node in returned(self.graph_module.graph):
            name = self.values[node].name
            if name in inputs:
                outputs.append(Passed("input", name))
            elif self.recorder.is_constant(self.values[node]):
                outputs.append(Passed("constant", name))
            elif name in outputs:
                outputs.append(Passed("output", name))
            else:
                outputs.append(name)
        return outputs

    def _refused(self, node: fx.Node, reason: str) -> ConversionError:
        return ConversionError(Refusal(node.name, str(node.target), reason, where(node)))


def signature(
    graph_module: fx.GraphModule, ranges: Ranges
) -> tuple[tuple[Tensor, ...], Profile | None]:
    """A graph's inputs, dims over each other, and the shapes its dynamic ones take."""
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder"]
    symbols = Symbols.of(graph_module)
    inputs = tuple(described(n, symbols) for n in placeholders)
    shapes = {
        n.name: (
            concrete_shape(n.meta["val"].shape, ranges, 0),
            concrete_shape(n.meta["val"].shape, ranges, 1),
            concrete_shape(n.meta["val"].shape, ranges, 2),
        )
        for n, tensor in zip(placeholders, inputs, strict=True)
        if not tensor.is_static
    }
    return inputs, Profile(shapes) if shapes else None


def concrete_shape(
    shape: Sequence[int | torch.SymInt], ranges: Ranges, which: int
) -> tuple[int, ...]:
    """A shape with every symbol at its minimum (0), optimum (1) or maximum (2)."""
    sizes = []
    for size in shape:
        if isinstance(size, torch.SymInt):
            expression = size.node.expr
            values = {s: ranges[str(s)].values[which] for s in expression.free_symbols}
            sizes.append(int(expression.subs(values)))
        else:
            sizes.append(int(size))
    return tuple(sizes)
