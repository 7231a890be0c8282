# SPDX-License-Identifier: Apache-2.0
"""One row a test: an operator call, converted, evaluated, compared with PyTorch and built.

    Case(aten.elu.default, f32(2, 3), alpha=0.5)
    Case(aten.add.Tensor, dynamic(f32(4, 3), {0: (1, 4, 8)}), weight(f32(3)))

``check`` runs a case as written and, where it has float32 tensors, once more with float16 ones.
For every target in ``TARGETS`` the call becomes a network; the evaluator's answers must agree with
eager PyTorch at the smallest, the usual and the largest sizes; TensorRT-RTX must build the network,
and the doubles of other releases must take it.
"""

from __future__ import annotations

import dataclasses
import operator
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from tests.packager.converters import engine
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import double
from trtpack import convert
from trtpack.capture import SizeRange
from trtpack.converters import node
from trtpack.converters.symbols import Symbols
from trtpack.recurrent_shapes import recurrent_shapes
from trtpack.target import Target, find_target
from trtpack_runtime import layers, recipes, reference

TARGETS = ("rtx-4090", "orin@jetpack-6.2", "orin@jetpack-6.0")
"""TensorRT-RTX 1.7 (also built), TensorRT 10.3 and 8.6."""

RELEASES = dict(zip(TARGETS, ("11.1", "10.3", "8.6"), strict=True))
"""What takes a target's networks in a double; TensorRT-RTX's are as those of release 11."""

EMITTED = {
    "10.16": find_target("orin@jetpack-7.2"),
    "11.1": dataclasses.replace(find_target("a10"), tensorrt=(11, 1, 0)),
}
"""Newer releases, whose doubles are given every case in the slow lane."""

TOLERANCES = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}
"""By the type of the answer; integers and booleans must be equal."""

MIN, OPT, MAX = range(3)
Range = tuple[int, int, int]


@dataclass(frozen=True)
class Input:
    """A tensor argument: random numbers in ``low`` to ``high``, or ``values``.

    ``ranges`` gives (min, opt, max) of dynamic dims. ``constant`` ones are parameters.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: float = -3
    high: float = 3
    ranges: Mapping[int, Range] = field(default_factory=dict)
    values: tuple[Any, ...] | None = None
    constant: bool = False

    def __str__(self) -> str:
        sizes = [
            "..".join(map(str, self.ranges[d])) if d in self.ranges else str(size)
            for d, size in enumerate(self.shape)
        ]
        name = str(self.dtype).removeprefix("torch.")
        return ("weight " if self.constant else "") + f"{name}[{'x'.join(sizes)}]"

    def sample(self, which: int, generator: torch.Generator) -> torch.Tensor:
        """A tensor of the smallest, usual or largest shape."""
        if self.values is not None:
            return torch.tensor(self.values, dtype=self.dtype).reshape(self.shape)
        shape = [self.ranges[d][which] if d in self.ranges else s for d, s in enumerate(self.shape)]
        if self.dtype == torch.bool:
            return torch.rand(shape, generator=generator) > 0.5
        numbers = torch.rand(shape, generator=generator) * (self.high - self.low) + self.low
        return (numbers if self.dtype.is_floating_point else numbers.floor()).to(self.dtype)

    def fake(self, mode: FakeTensorMode, generator: torch.Generator) -> torch.Tensor:
        """The same as metadata; dynamic dims with the same usual size share a symbol."""
        kinds = [
            DimDynamic.DUCK if d in self.ranges else DimDynamic.STATIC
            for d in range(len(self.shape))
        ]
        context = StatelessSymbolicContext(dynamic_sizes=kinds)
        return mode.from_tensor(self.sample(OPT, generator), symbolic_context=context)


def f32(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A float32 tensor; float16 in the second run of a case."""
    return Input(torch.float32, shape, low, high)


def f16(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A float16 tensor."""
    return Input(torch.float16, shape, low, high)


def bf16(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A bfloat16 tensor."""
    return Input(torch.bfloat16, shape, low, high)


def i64(*shape: int, low: int = -5, high: int = 6) -> Input:
    """An int64 tensor of numbers from ``low`` up to, not including, ``high``."""
    return Input(torch.int64, shape, low, high)


def i32(*shape: int, low: int = -5, high: int = 6) -> Input:
    """An int32 tensor of numbers from ``low`` up to, not including, ``high``."""
    return Input(torch.int32, shape, low, high)


def boolean(*shape: int) -> Input:
    """A tensor of random truth values."""
    return Input(torch.bool, shape)


def given(values: Sequence[Any], dtype: torch.dtype = torch.float32) -> Input:
    """A tensor of exactly these numbers; nested lists make more dims."""
    tensor = torch.tensor(values, dtype=dtype)
    return Input(dtype, tuple(tensor.shape), values=tuple(tensor.flatten().tolist()))


def dynamic(tensor: Input, ranges: Mapping[int, Range]) -> Input:
    """``tensor`` with dims that vary; its own size there is the usual one."""
    shape = tuple(ranges[d][OPT] if d in ranges else s for d, s in enumerate(tensor.shape))
    return dataclasses.replace(tensor, ranges=ranges, shape=shape)


def weight(tensor: Input) -> Input:
    """``tensor`` as a parameter of the model, so that its value is known while converting."""
    return dataclasses.replace(tensor, constant=True)


@dataclass(frozen=True)
class SizeOf:
    """A size argument computed from the tensors' shapes."""

    text: str
    of: Callable[[Sequence[torch.Tensor]], Any]

    def __str__(self) -> str:
        return self.text


def size(tensor: int, dim: int, then: Callable[[Any], Any] = lambda s: s) -> SizeOf:
    """A size argument: ``then(size)`` of the ``tensor``-th tensor along ``dim``."""
    return SizeOf(f"size({tensor}, {dim})", lambda tensors: then(tensors[tensor].shape[dim]))


class Case:
    """A call of ``op``; tensors are ``Input``, sizes may be ``SizeOf``."""

    def __init__(self, op: OpOverload, *args: Any, **kwargs: Any) -> None:
        self.op, self.args, self.kwargs = op, args, kwargs
        self.half, self.has_values = True, True
        self.outputs: tuple[int, ...] | None = None
        self.others: tuple[Input, ...] = ()

    def float32_only(self, reason: str) -> Case:
        """Leaves out the float16 run, for a reason."""
        assert reason
        self.half = False
        return self

    def beside(self, *inputs: Input) -> Case:
        """Gives the graph further inputs, which only sizes are taken from."""
        self.others = inputs
        return self

    def with_any_values(self) -> Case:
        """Compares types and shapes only, as of an uninitialised tensor."""
        self.has_values = False
        return self

    def answering(self, *outputs: int) -> Case:
        """Compares only these outputs; the others serve training."""
        self.outputs = outputs
        return self

    def __str__(self) -> str:
        words = [_text(a) for a in self.args]
        words += [f"{k}={_text(v)}" for k, v in self.kwargs.items()]
        words += [f"beside {other}" for other in self.others]
        return f"{self.op}({', '.join(words)})"

    def inputs(self) -> list[Input]:
        """The tensor arguments in order."""
        found: list[Input] = []
        _walk((self.args, self.kwargs), lambda i: found.append(i) or i, lambda s: s)
        return [*found, *self.others]

    def in_type(self, dtype: torch.dtype) -> Case:
        """The same call with tensors of ``dtype`` in place of float32 ones."""

        def other(tensor: Input) -> Input:
            is_float = tensor.dtype == torch.float32
            return dataclasses.replace(tensor, dtype=dtype) if is_float else tensor

        args, kwargs = _walk((self.args, self.kwargs), other, lambda s: s)
        case = Case(self.op, *args, **kwargs)
        case.outputs, case.others, case.has_values = self.outputs, self.others, self.has_values
        return case

    def opened(self) -> Case | None:
        """The same call with an open first size, of all tensors that share it; None if it has
        none."""
        sizes = [i.shape[0] for i in self.inputs() if i.shape and not (i.constant or i.values)]
        usual = max(sizes, default=0)
        if usual < 2:
            return None

        def opened(tensor: Input) -> Input:
            if not tensor.shape or tensor.constant or tensor.values or tensor.shape[0] != usual:
                return tensor
            return dynamic(tensor, {0: (usual, usual, 2 * usual)})

        args, kwargs = _walk((self.args, self.kwargs), opened, lambda s: s)
        return Case(self.op, *args, **kwargs)

    def call(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Eager PyTorch's answers, flat."""
        remaining = iter(tensors)
        args, kwargs = _walk(
            (self.args, self.kwargs), lambda _: next(remaining), lambda s: s.of(tensors)
        )
        return [value for _, value in self.wanted(self.op(*args, **kwargs))]

    def wanted(self, result: Any) -> list[tuple[int, torch.Tensor]]:
        """The tensors to compare among the operator's results, with their positions."""
        results = [result] if isinstance(result, torch.Tensor) else result
        chosen = range(len(results)) if self.outputs is None else self.outputs
        return [(i, results[i]) for i in chosen if isinstance(results[i], torch.Tensor)]

    def samples(self, which: int) -> list[torch.Tensor]:
        """One tensor for each input; parameters are the same for every ``which``."""
        seed = zlib.crc32(str(self).encode())
        varying, fixed = (torch.Generator().manual_seed(seed + i) for i in (which, 99))
        return [i.sample(which, fixed if i.constant else varying) for i in self.inputs()]


class Checker:
    """Calls every proof on a case; the fixture ``check`` is one of these."""

    def __call__(self, case: Case) -> None:
        _check(case)
        for variant in variants(case, torch.float16):
            _check(variant)


def variants(case: Case, *dtypes: torch.dtype) -> list[Case]:
    """The case in other floating-point types, where it has float32 tensors and may be run so."""
    if not case.half or all(i.dtype != torch.float32 for i in case.inputs()):
        return []
    return [case.in_type(dtype) for dtype in dtypes]


def check_emission(case: Case, release: str) -> None:
    """A case's network, made for a release of ``EMITTED``, is taken by the release's double."""
    module, ranges = _graph(case)
    target = EMITTED[release]
    assert _refused_beforehand(module, target) is None, case
    segment = convert.convert(module, target, ranges)
    _only_layers_of(segment, target)
    emitted(_double(release), segment.network, bytes_of(segment.constants))


def check_on_rtx(case: Case) -> None:
    """A case's network for TensorRT-RTX agrees with PyTorch, and is built."""
    module, ranges = _graph(case)
    segment = convert.convert(module, find_target(TARGETS[0]), ranges)
    for which in (MIN, OPT, MAX) if ranges else (OPT,):
        _agree(case, module, segment, which, TARGETS[0])
    engine.build(segment)


def refusal(op: OpOverload, *args: Any, target: str = TARGETS[0], **kwargs: Any) -> str | None:
    """Why a call has to stay in PyTorch, beforehand or found while converting; None if not."""
    return refused(Case(op, *args, **kwargs), target)


def refused(case: Case, target: str | Target = TARGETS[0]) -> str | None:
    """Why a case has to stay in PyTorch; None if it need not."""
    module, ranges = _graph(case)
    target = find_target(target) if isinstance(target, str) else target
    if reason := _refused_beforehand(module, target):
        return reason
    try:
        convert.convert(module, target, ranges)
    except convert.ConversionError as error:
        return error.refusal.reason
    return None


def converted(case: Case, target: str = TARGETS[0]) -> convert.ConvertedSegment:
    """The network of a case, for tests that look at its layers."""
    module, ranges = _graph(case)
    return convert.convert(module, find_target(target), ranges)


def kinds(case: Case, target: str = TARGETS[0]) -> list[str]:
    """The layer kinds of a case's network, in order."""
    return [layer.kind for layer in converted(case, target).network.layers]


def _check(case: Case) -> None:
    module, ranges = _graph(case)
    seen = set()
    for name in TARGETS:
        target = find_target(name)
        reason = _refused_beforehand(module, target)
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
        for which in (MIN, OPT, MAX) if ranges else (OPT,):
            _agree(case, module, segment, which, name)
        if target.engine_kind == "tensorrt-rtx":
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


def _refused_beforehand(module: fx.GraphModule, target: Target) -> str | None:
    placeholders = module.graph.find_nodes(op="placeholder")
    symbols = Symbols((n.name, n.meta["val"]) for n in placeholders)
    (call,) = (n for n in module.graph.nodes if isinstance(n.target, OpOverload))
    return node.refusal(call, target, symbols)


def _graph(case: Case) -> tuple[fx.GraphModule, dict[str, SizeRange]]:
    """A graph of the one call, with metadata as ``torch.export`` leaves it."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
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
    args, kwargs = _walk((case.args, case.kwargs), lambda _: next(remaining), lambda s: s.of(fakes))
    with enable_python_dispatcher(), mode, recurrent_shapes():
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


def _walk(value: Any, tensor: Callable[[Input], Any], sized: Callable[[SizeOf], Any]) -> Any:
    if isinstance(value, Input):
        return tensor(value)
    if isinstance(value, SizeOf):
        return sized(value)
    if isinstance(value, tuple | list):
        return type(value)(_walk(v, tensor, sized) for v in value)
    if isinstance(value, dict):
        return {k: _walk(v, tensor, sized) for k, v in value.items()}
    return value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value).removeprefix("torch.")
