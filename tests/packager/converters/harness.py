# SPDX-License-Identifier: Apache-2.0
"""One row a test: an operator call, converted, evaluated, compared with PyTorch and built.

    Case(aten.elu.default, f32(2, 3), alpha=0.5)
    Case(aten.add.Tensor, dynamic(f32(4, 3), {0: (1, 4, 8)}), weight(f32(3)))

``check`` runs a case as written and, where it has float32 tensors, once more with float16 ones,
whose engines the slow lane builds. For every target in ``TARGETS`` the call becomes a network; the
evaluator's answers must agree with eager PyTorch at the smallest, the usual and the largest sizes;
TensorRT-RTX must build the network, and the doubles of other releases must take it.
"""

from __future__ import annotations

import dataclasses
import operator
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from typing import Any

import sympy
import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from tests.packager.converters import engine
from tests.packager.converters.case import (
    MAX,
    MIN,
    OPT,
    Case,
    Input,
    SizeOf,
    bf16,
    boolean,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
    size,
    walk,
    weight,
)
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import double
from trtpack import convert
from trtpack.capture import SizeRange
from trtpack.converters import node
from trtpack.converters.symbols import Symbols
from trtpack.recurrent_shapes import recurrent_shapes
from trtpack.target import Target, find_target
from trtpack_runtime import layers, recipes, reference

__all__ = [
    "EVERY",
    "MAX",
    "MIN",
    "ON_GPU_ONLY",
    "OPT",
    "TARGETS",
    "TOLERANCES",
    "Case",
    "Checker",
    "Graph",
    "Input",
    "SizeOf",
    "assert_agrees",
    "assumes_sizes",
    "bf16",
    "boolean",
    "converted",
    "dynamic",
    "f16",
    "f32",
    "given",
    "graph_of",
    "i32",
    "i64",
    "kinds",
    "network",
    "refusal",
    "refused",
    "refused_beforehand",
    "size",
    "variants",
    "weight",
]

TARGETS = ("rtx-4090", "orin@jetpack-6.2", "orin@jetpack-6.0")
"""TensorRT-RTX 1.7 (also built), TensorRT 10.3 and 8.6."""

RELEASES = dict(zip(TARGETS, ("11.1", "10.3", "8.6"), strict=True))
"""What takes a target's networks in a double; TensorRT-RTX's are as those of release 11."""

EVERY = {
    "8.6": find_target("orin@jetpack-6.0"),
    "10.3": find_target("orin@jetpack-6.2"),
    "10.16": find_target("orin@jetpack-7.2"),
    "11.1": dataclasses.replace(find_target("a10"), tensorrt=(11, 1, 0)),
    "rtx-1.7": find_target("rtx-4090"),
}
"""A target for each release that there is a double of; the slow lane tries all cases with each."""

ON_GPU_ONLY = {"aten::_scaled_dot_product_efficient_attention"}
"""Operators that eager PyTorch has for a GPU only; their tests hold them to others."""

TOLERANCES = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}
"""By the type of the answer; integers and booleans must be equal."""

Graph = tuple[fx.GraphModule, Mapping[str, SizeRange]]
"""A case's call, and the range of each size symbol."""


class Checker:
    """Calls every proof on a case; the fixture ``check`` is one of these."""

    def __call__(self, case: Case, *, build: bool = True) -> None:
        _check(case, build=build)
        for variant in variants(case, torch.float16):
            _check(variant, build=False)


def variants(case: Case, *dtypes: torch.dtype) -> list[Case]:
    """The case in other floating-point types, where it has float32 tensors and may be run so."""
    if not case.half or all(i.dtype != torch.float32 for i in case.inputs()):
        return []
    return [case.in_type(dtype) for dtype in dtypes]


def network(graph: Graph, release: str) -> convert.ConvertedSegment:
    """A case's network for a release of ``EVERY``, which the release's double has taken.

    Raises:
        ConversionError: the case has to stay in PyTorch.
    """
    module, ranges = graph
    target = EVERY[release]
    segment = convert.convert(module, target, ranges)
    _only_layers_of(segment, target)
    emitted(_double(release), segment.network, bytes_of(segment.constants))
    return segment


def assert_agrees(case: Case, graph: Graph, segment: convert.ConvertedSegment, name: str) -> None:
    """A network's answers are eager PyTorch's at the smallest, the usual and the largest sizes."""
    module, ranges = graph
    for which in (MIN, OPT, MAX) if ranges else (OPT,):
        _agree(case, module, segment, which, name)


def assumes_sizes(graph: Graph) -> bool:
    """Whether tracing assumed something that not all sizes keep, so that export narrows them."""
    module, ranges = graph
    tensors = (n.meta["val"] for n in module.graph.find_nodes(op="placeholder"))
    shapes = next((t.fake_mode.shape_env for t in tensors), ShapeEnv())
    values = {symbol: sizes.values for symbol, sizes in ranges.items()}
    is_fixed = any(symbol.isdigit() for symbol in ranges)
    return is_fixed or not all(
        guard.expr.subs({s: values[str(s)][which] for s in guard.expr.free_symbols}) == sympy.true
        for guard in shapes.guards
        if all(str(s) in values for s in guard.expr.free_symbols)
        for which in (MIN, OPT, MAX)
    )


def refusal(op: OpOverload, *args: Any, target: str = TARGETS[0], **kwargs: Any) -> str | None:
    """Why a call has to stay in PyTorch, beforehand or found while converting; None if not."""
    return refused(Case(op, *args, **kwargs), target)


def refused(case: Case, target: str | Target = TARGETS[0]) -> str | None:
    """Why a case has to stay in PyTorch; None if it need not."""
    module, ranges = graph_of(case)
    target = find_target(target) if isinstance(target, str) else target
    if reason := refused_beforehand(module, target):
        return reason
    try:
        convert.convert(module, target, ranges)
    except convert.ConversionError as error:
        return error.refusal.reason
    return None


def converted(case: Case, target: str = TARGETS[0]) -> convert.ConvertedSegment:
    """The network of a case, for tests that look at its layers."""
    module, ranges = graph_of(case)
    return convert.convert(module, find_target(target), ranges)


def kinds(case: Case, target: str = TARGETS[0]) -> list[str]:
    """The layer kinds of a case's network, in order."""
    return [layer.kind for layer in converted(case, target).network.layers]


def _check(case: Case, *, build: bool = True) -> None:
    module, ranges = graph_of(case)
    seen = set()
    for name in TARGETS:
        target = find_target(name)
        reason = refused_beforehand(module, target)
        if name == TARGETS[0] and not case.on_rtx:
            assert reason is not None, f"{case} is not refused"
            continue
        if reason and name != TARGETS[0]:
            continue  # an older TensorRT may lack what the operator needs
        assert reason is None, f"{case} is refused: {reason}"
        segment = convert.convert(module, target, ranges)
        _only_layers_of(segment, target)
        emitted(_double(RELEASES[name]), segment.network, bytes_of(segment.constants))
        if segment.network.digest() in seen:
            continue
        seen.add(segment.network.digest())
        _recipes_hold(segment, module)
        assert_agrees(case, (module, ranges), segment, name)
        if build and target.engine_kind == "tensorrt-rtx":
            engine.build(segment)


@cache
def _double(release: str) -> Any:
    return double(release)


def _only_layers_of(segment: convert.ConvertedSegment, target: Target) -> None:
    for layer in segment.network.every_layer():
        since = layers.KINDS[layer.kind].since
        assert target.tensorrt_at_least(since), f"{layer.kind} came with {since}: {target.name}"


def _recipes_hold(segment: convert.ConvertedSegment, module: fx.GraphModule) -> None:
    """Replaying a derived constant's recipe from the parameters gives the constant."""
    parameters = dict(module.named_buffers())
    for constant in segment.network.constants.values():
        if constant.recipe:
            replayed = recipes.replay(dict(constant.recipe), parameters)
            stored = segment.constants[constant.data]
            torch.testing.assert_close(replayed, stored, rtol=0, atol=0, equal_nan=True)


def _agree(
    case: Case, module: fx.GraphModule, segment: convert.ConvertedSegment, which: int, target: str
) -> None:
    samples = case.samples(which)
    expected = case.call(samples)
    nodes = module.graph.find_nodes(op="placeholder")
    values = [s for s, i in zip(samples, case.inputs(), strict=True) if not i.constant]
    inputs = {n.name: v for n, v in zip(nodes, values, strict=True)}
    answers = dict(
        zip(
            segment.network.outputs,
            reference.evaluate(segment.network, segment.constants, inputs),
            strict=True,
        )
    )
    for i, (output, want) in enumerate(zip(segment.outputs, expected, strict=True)):
        have = _answer(output, inputs, segment.constants, answers)
        assert (have.dtype, have.shape) == (want.dtype, want.shape), f"{case} for {target}"
        if not case.has_values:
            continue
        tolerance = TOLERANCES.get(want.dtype, {"rtol": 0, "atol": 0})

        def where(message: str, i: int = i) -> str:
            return f"{case} for {target}, output {i}, sizes {which}: {message}"

        torch.testing.assert_close(have, want, equal_nan=True, msg=where, **tolerance)


def _answer(
    output: str | convert.Passed,
    inputs: Mapping[str, torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    answers: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    if isinstance(output, str):
        return answers[output]
    return {"input": inputs, "constant": constants, "output": answers}[output.kind][output.name]


def refused_beforehand(module: fx.GraphModule, target: Target) -> str | None:
    """Why the one call of a graph is refused before it is converted; None if it is not."""
    placeholders = module.graph.find_nodes(op="placeholder")
    symbols = Symbols((n.name, n.meta["val"]) for n in placeholders)
    (call,) = (n for n in module.graph.nodes if isinstance(n.target, OpOverload))
    return node.refusal(call, target, symbols)


@lru_cache(maxsize=64)
def graph_of(case: Case) -> Graph:
    """A graph of the one call, with metadata as ``torch.export`` leaves it; not to be changed."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    mode.cache_enabled = False  # what is called once costs more to remember than to trace
    generator = torch.Generator().manual_seed(0)
    samples, inputs = iter(case.samples(OPT)), case.inputs()
    root, graph = torch.nn.Module(), fx.Graph()
    nodes: list[fx.Node] = []
    for i, tensor in enumerate(inputs):
        value = next(samples)
        if tensor.constant:
            root.register_buffer(f"weight{i}", value)
            made = graph.get_attr(f"weight{i}")
        else:
            made = graph.placeholder(f"x{i}")
        made.meta["val"] = tensor.fake(mode, generator)
        nodes.append(made)
    fakes = [n.meta["val"] for n in nodes]
    remaining = iter(nodes)
    args, kwargs = walk((case.args, case.kwargs), lambda _: next(remaining), lambda s: s.of(fakes))
    with _in_parts(inputs), mode, recurrent_shapes():
        result = case.op(*fx.map_arg(args, _meta), **fx.map_arg(kwargs, _meta))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Raw SymInt")  # as lowering leaves sizes
        call = graph.call_function(case.op, args, kwargs)
    call.meta["val"] = result
    outputs = [call]
    if not isinstance(result, torch.Tensor):
        outputs = [_getitem(graph, call, i, value) for i, value in case.wanted(result)]
    graph.output(tuple(outputs))
    return fx.GraphModule(root, graph), _size_ranges(inputs, fakes)


def _in_parts(inputs: Sequence[Input]) -> AbstractContextManager[None]:
    """Traces operators by their parts in Python, as open sizes need it. Without those the metadata
    is the same either way, and PyTorch's own is there sooner."""
    return enable_python_dispatcher() if any(i.ranges for i in inputs) else nullcontext()


def _size_ranges(inputs: Sequence[Input], fakes: Sequence[torch.Tensor]) -> dict[str, SizeRange]:
    ranges: dict[str, SizeRange] = {}
    for tensor, fake in zip(inputs, fakes, strict=True):
        for d, values in tensor.ranges.items():
            symbol, here = str(fake.shape[d].node.expr), SizeRange(*values)
            assert ranges.setdefault(symbol, here) == here, "sizes with one symbol, two ranges"
    return ranges


def _getitem(graph: fx.Graph, call: fx.Node, index: int, value: torch.Tensor) -> fx.Node:
    item = graph.call_function(operator.getitem, (call, index))
    item.meta["val"] = value
    return item


def _meta(described: fx.Node) -> Any:
    return described.meta["val"]
