# SPDX-License-Identifier: Apache-2.0
"""Runs a captured or lowered graph on tensors, telling every value.

A lowered graph has sizes as symbols among its arguments; they get the values that the inputs, or
the results so far, have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..branches import COND, branches
from ..capture import Captured, attribute

Watch = Callable[[fx.Node, Any], Any]
"""Told each call and its result; what it answers goes on in the result's place."""

Prepare = Callable[[fx.Node, Any], Any]
"""Told each call and its arguments by position; what it answers is called with."""


aten = torch.ops.aten
_PRODUCTS: frozenset[Any] = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.convolution.default,
        aten.linear.default,
        aten.matmul.default,
        aten.mm.default,
        aten.bmm.default,
        aten.addmm.default,
    }
)
"""What is multiplied in float32 where a CPU is given float16, and rounded then. PyTorch adds such
products up in float32 too, but takes 4 (linear) to 30 times (conv2d) as long on a CPU that has no
instructions for them."""


class Elsewhere:
    """A device for a graph that was captured on the CPU.

    Its constants go there once, and what it makes of nothing is made there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moved: dict[tuple[int, str], torch.Tensor] = {}

    def constant(self, owner: fx.GraphModule, name: str, value: Any) -> Any:
        """An attribute of a graph, there."""
        if not isinstance(value, torch.Tensor) or value.device == self.device:
            return value
        key = (id(owner), name)
        if key not in self._moved:
            self._moved[key] = value.detach().to(self.device)
        return self._moved[key]

    def value(self, value: Any) -> Any:
        """An input, or a device among a call's arguments."""
        if isinstance(value, torch.Tensor):
            return value.to(self.device)
        return self.device if isinstance(value, torch.device) else value


INITIAL: Mapping[str, torch.Tensor] = {}


def run_graph(
    module: fx.GraphModule,
    inputs: Mapping[str, torch.Tensor],
    watch: Watch | None = None,
    prepare: Prepare | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[torch.Tensor, ...]:
    """What a graph answers for the values of its placeholders; it runs ``elsewhere`` if given."""
    names = [node.name for node in module.graph.find_nodes(op="placeholder")]
    runner = _Runner(module, watch, prepare, {}, elsewhere)
    given = [inputs[name] for name in names]
    if elsewhere is not None:
        given = [elsewhere.value(value) for value in given]
    with torch.no_grad():
        answered = runner.run(*given, enable_io_processing=False)
    return tuple(value for value in answered if isinstance(value, torch.Tensor))


def named_inputs(
    captured: Captured, sample: Sequence[torch.Tensor], before: Mapping[str, torch.Tensor] = INITIAL
) -> dict[str, torch.Tensor]:
    """A sample's tensors in flat order, and the state by placeholder: ``before`` by slot, else the
    initial values."""
    names = [name for name in captured.inputs if name is not None]
    given = dict(zip(names, sample, strict=True))
    for state in captured.state:
        value = before.get(state.slot, attribute(captured.graph_module, state.slot))
        given[state.input] = value.clone()
    return given


class _Runner(fx.Interpreter):
    def __init__(
        self,
        module: fx.GraphModule,
        watch: Watch | None,
        prepare: Prepare | None,
        sizes: dict[sympy.Symbol, int],
        elsewhere: Elsewhere | None,
    ) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._watch, self._prepare, self._sizes = watch, prepare, sizes
        self._owner, self._elsewhere = module, elsewhere

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        if self._elsewhere is None:
            return value
        return self._elsewhere.constant(self._owner, target, value)

    def run_node(self, n: fx.Node) -> Any:
        if n.target is COND:
            result = self._branch(n)
        else:
            result = super().run_node(n)
        if n.op == "call_function" and self._watch is not None:
            result = self._watch(n, result)
        if n.op != "output":
            self._learn(n.meta.get("val"), result)
        return result

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        args = self._concrete(args)
        if self._prepare is not None:
            args = self._prepare(n, args)
        return args, self._concrete(kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target not in _PRODUCTS or not _in_float16_on_cpu((args, kwargs)):
            return super().call_function(target, args, kwargs)
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs))
        return super().call_function(target, args, kwargs).half()

    def _branch(self, node: fx.Node) -> Any:
        condition, _, _, given = self.fetch_args_kwargs_from_env(node)[0]
        taken = branches(node)[0 if bool(condition) else 1]
        runner = _Runner(taken, None, None, self._sizes, self._elsewhere)
        return runner.run(*given, enable_io_processing=False)

    def _learn(self, described: Any, value: Any) -> None:
        """Sizes that a result has and nothing told before."""
        if isinstance(described, list | tuple) and isinstance(value, list | tuple):
            for one, other in zip(described, value, strict=False):
                self._learn(one, other)
        elif isinstance(described, torch.Tensor) and isinstance(value, torch.Tensor):
            for size, real in zip(described.shape, value.shape, strict=False):
                self._learn(size, real)
        elif isinstance(described, torch.SymInt) and described.node.expr.is_Symbol:
            self._sizes.setdefault(described.node.expr, int(value))

    def _concrete(self, value: Any) -> Any:
        match value:
            case torch.SymInt() | torch.SymFloat() | torch.SymBool():
                found = value.node.expr.subs(self._sizes)
                kind = {torch.SymInt: int, torch.SymFloat: float}.get(type(value), bool)
                return kind(found)
            case torch.device() if self._elsewhere is not None:
                return self._elsewhere.value(value)
            case slice():
                return slice(*map(self._concrete, (value.start, value.stop, value.step)))
            case dict():
                return {key: self._concrete(item) for key, item in value.items()}
            case list() | tuple():
                return type(value)(self._concrete(item) for item in value)
        return value


def _in_float16_on_cpu(arguments: Any) -> bool:
    tensors = (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
    return all(t.dtype == torch.float16 and t.device.type == "cpu" for t in tensors)
