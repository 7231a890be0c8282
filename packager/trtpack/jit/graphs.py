# SPDX-License-Identifier: Apache-2.0
"""Dynamo's graphs as AOTAutograd traces them.

AOTAutograd makes a graph functional and puts changes of inputs, and outputs that share their
memory, back around what is compiled. Composite operators that converters know whole stay whole, as
at capture.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.descriptors import (
    BufferAOTInput,
    ParamAOTInput,
    PlainAOTInput,
)
from torch._guards import TracingContext
from torch.export._trace import _ignore_backend_decomps
from torch.export.exported_program import (
    _override_composite_implicit_decomp,
    _split_decomp_table_to_cia_and_python_decomp,
)

from trtpack.capture import decompositions
from trtpack.user_code import user_line
from trtpack_runtime.tf32 import cudnn_told

from .taken import Argument, Taken, module_name, take


@dataclass(frozen=True)
class Graph:
    """A functional graph: its arguments' names, and the positions of those that are parameters or
    buffers which it does not change. ``line`` is the user's that it begins with, or empty."""

    module: fx.GraphModule
    names: tuple[str, ...]
    static: frozenset[int]
    line: str

    @property
    def label(self) -> str:
        """What it is called where people read of it."""
        return f"the graph from {self.line} on" if self.line else "a graph"

    def take(self, given: Sequence[Any], grown: Mapping[str, int]) -> Taken:
        """Takes the graph apart, with the parameters that one call gives as constants."""
        arguments = [
            Argument(name, value if i in self.static else None)
            for i, (name, value) in enumerate(zip(self.names, given, strict=True))
        ]
        return take(self.module, arguments, grown)


Compiled = Callable[[Graph, list[Any]], Callable[..., Any]]
"""Answers, for a graph and its arguments, what is called with them; ``_boxed_call`` as
AOTAutograd has it."""


def traced(
    module: fx.GraphModule, example_inputs: Sequence[Any], compiled: Compiled
) -> Callable[..., Any]:
    """What Dynamo calls in a graph's place. Nothing real is computed while ``compiled`` runs:
    AOTAutograd takes every tensor for a fake one then."""
    placeholders = module.graph.find_nodes(op="placeholder")
    own = {
        index: (_name(node), example_inputs[index], _is_static(node))
        for index, node in enumerate(placeholders)
    }

    def compile_graph(graph: fx.GraphModule, fakes: Sequence[Any]) -> Callable[..., Any]:
        known = TracingContext.get().fw_metadata
        changed = set(known.mutated_inp_runtime_indices) if known is not None else set()
        names, values, static = [], [], set()
        for position, node in enumerate(graph.graph.find_nodes(op="placeholder")):
            name, value, is_static = node.name, None, False
            match node.meta.get("desc"):
                case PlainAOTInput(idx=index):
                    name, value, is_static = own[index]
                case ParamAOTInput(target=target) | BufferAOTInput(target=target):
                    name, value, is_static = target, operator.attrgetter(target)(module), True
            names.append(name)
            values.append(value)
            if is_static and position not in changed:
                static.add(position)
        return compiled(Graph(graph, tuple(names), frozenset(static), line_of(module)), values)

    whole, parts = _split_decomp_table_to_cia_and_python_decomp(dict(decompositions()))
    with ExitStack() as stack:
        stack.enter_context(cudnn_told())
        stack.enter_context(_ignore_backend_decomps())
        stack.enter_context(_override_composite_implicit_decomp(whole))
        around = aot_autograd(
            fw_compiler=compile_graph, inference_compiler=compile_graph, decompositions=parts
        )
        made: Callable[..., Any] = around(module, example_inputs)
    return made


def computes(module: fx.GraphModule) -> bool:
    """Whether a graph of Dynamo's does anything."""
    calls = ("call_function", "call_method", "call_module")
    return any(node.op in calls for node in module.graph.nodes)


def gives_gradients(example_inputs: Sequence[Any]) -> bool:
    """Whether what a graph answers may be asked for gradients."""
    return torch.is_grad_enabled() and any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs
    )


def device_of(example_inputs: Sequence[Any]) -> torch.device:
    """Where a graph runs: the device of its tensors, single numbers on the CPU left out."""
    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    devices = [t.device for t in tensors if t.dim() or t.device.type != "cpu"]
    return next(iter(devices), torch.device("cpu"))


def line_of(module: fx.GraphModule) -> str:
    """``file.py:12``, the user's line that a graph of Dynamo's begins with; empty if unknown."""
    lines = (user_line(node.meta.get("stack_trace") or "") for node in module.graph.nodes)
    return next(filter(None, lines), "")


def _is_static(node: fx.Node) -> bool:
    """Whether Dynamo takes an input for a module's own parameter or buffer."""
    return "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})


def _name(node: fx.Node) -> str:
    """What the user calls an input: ``conv1.weight`` of a parameter, ``x`` of an argument."""
    source = getattr(getattr(node.meta.get("grapharg"), "source", None), "name", "")
    name = module_name(source) if _is_static(node) else ""
    if not name:
        local = re.match(r"L\['(\w+)'\]$", source)
        name = local[1] if local else node.name
    return re.sub(r"[^\w.]", "_", name)
