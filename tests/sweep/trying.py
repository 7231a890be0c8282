# SPDX-License-Identifier: Apache-2.0
"""Tries samples: traced, lowered, converted, evaluated, compared and built."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from tests.packager.converters import engine
from tests.sweep.graphs import tracing
from tests.sweep.judging import difference
from tests.sweep.samples import Sample, samples
from trtpack import convert
from trtpack.capture import Captured
from trtpack.converters import node as nodes
from trtpack.converters.symbols import Symbols
from trtpack.lowering import lower
from trtpack.options import SizeRange
from trtpack.target import Target, find_target
from trtpack_runtime import reference

T = torch.Tensor
State = Literal["right", "refused", "wrong", "untried"]
SECONDS = 30.0
"""The longest that one sample may take."""


@dataclass(frozen=True)
class Outcome:
    """What came of a sample; ``reason`` says why it was refused, is wrong or was not tried."""

    operator: str
    dtype: str
    index: int
    state: State
    reason: str = ""
    text: str = ""


@dataclass(frozen=True)
class Settings:
    """What is tried: at most so many samples of an operator and type, and so many engines built."""

    target: str = "rtx-4090"
    most: int | None = 20
    builds: int = 1
    dynamic: bool = False


class _Untried(Exception):
    """Says why nothing can be said about a sample."""


class _TooLate(Exception):
    """A sample takes too long."""


def outcomes(operator: str, dtype: str, settings: Settings, begin: int = 0) -> Iterator[Outcome]:
    """What comes of each sample from the ``begin``-th on."""
    target, built = find_target(settings.target), set[str]()
    with tracing() as trace:
        traced = [
            (sample, _Traced.of(sample, trace, settings.dynamic))
            for sample in samples(operator, dtype, settings.most)
            if sample.index >= begin
        ]
    for sample, graphs in traced:
        state, reason = _outcome(sample, graphs, target, settings, built)
        yield Outcome(operator, dtype, sample.index, state, reason, sample.text)


@dataclass(frozen=True)
class _Traced:
    """The graphs of a sample to try, or why there are none."""

    graphs: Sequence[Captured] = ()
    why_not: str = ""
    error: str = ""

    @classmethod
    def of(cls, sample: Sample, trace: Callable[..., Captured], dynamic: bool) -> _Traced:
        try:
            with _at_most(SECONDS):
                _can_be_held(sample)
                ways = (False, True) if len(sample.tensors) > 1 else (False,)
                ways = ways[::-1] if sample.index % 2 else ways
                return cls([trace(sample, weights=w, dynamic=dynamic) for w in ways])
        except _Untried as error:
            return cls(why_not=str(error))
        except Exception as error:
            return cls(why_not=f"cannot be traced: {_first_line(error)}")


def _outcome(
    sample: Sample, traced: _Traced, target: Target, settings: Settings, built: set[str]
) -> tuple[State, str]:
    if traced.why_not:
        return "untried", traced.why_not
    try:
        with _at_most(SECONDS):
            want = _eager(sample)
            refusals = [
                _refused_or_right(sample, want, graph, target, settings, built)
                for graph in traced.graphs
            ]
    except _Untried as error:
        return "untried", str(error)
    except _Wrong as error:
        return "wrong", str(error)
    except _TooLate:
        return "wrong", f"takes more than {SECONDS:.0f} s"
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {_first_line(error)}{_raised_at(error)}"
    return ("right", "") if None in refusals else ("refused", refusals[0] or "")


class _Wrong(Exception):
    """Says how answers are wrong."""


def _refused_or_right(
    sample: Sample,
    want: Sequence[T],
    captured: Captured,
    target: Target,
    settings: Settings,
    built: set[str],
) -> str | None:
    """Why TensorRT cannot have a graph; None where it has, and answers right."""
    for call in captured.graph_module.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ()):
            raise _Untried("answers random numbers")
    lowered = lower(captured)
    module = captured.graph_module
    if reason := _refused_beforehand(module, target):
        return reason
    try:
        segment = convert.convert(module, target, _ranges(module), lowered.recipes)
    except convert.ConversionError as error:
        return f"{_short(error.refusal.op)}: {error.refusal.reason}"
    have = _evaluated(sample, module, segment)
    if found := difference(sample, have, want):
        raise _Wrong(found)
    digest = segment.network.digest()
    if target.engine_kind == "tensorrt-rtx" and len(built) < settings.builds:
        built.add(digest)
        try:
            engine.build(segment)
        except AssertionError as error:
            raise _Wrong(f"TensorRT-RTX does not build it: {_first_line(error)}") from error
    return None


def _refused_beforehand(module: fx.GraphModule, target: Target) -> str | None:
    symbols = Symbols.of(module)
    for call in module.graph.nodes:
        if call.op != "call_function" or not isinstance(call.target, torch._ops.OpOverload):
            continue
        if reason := nodes.refusal(call, target, symbols):
            return f"{_short(str(call.target))}: {reason}"
    return None


def _evaluated(
    sample: Sample, module: fx.GraphModule, segment: convert.ConvertedSegment
) -> list[T]:
    names = [str(node.name) for node in module.graph.find_nodes(op="placeholder")]
    inputs = dict(zip(names, sample.tensors[: len(names)], strict=True))
    given = {tensor.name: inputs[tensor.name].clone() for tensor in segment.network.inputs}
    with torch.no_grad():
        found = reference.evaluate(segment.network, segment.constants, given)
    answers = dict(zip(segment.network.outputs, found, strict=True))
    kinds = {"input": inputs, "constant": segment.constants, "output": answers}
    return [
        answers[output] if isinstance(output, str) else kinds[output.kind][output.name]
        for output in segment.outputs
    ]


def _ranges(module: fx.GraphModule) -> dict[str, SizeRange]:
    """Every size symbol at the size that the sample has."""
    sizes = (
        size.node
        for node in module.graph.find_nodes(op="placeholder")
        for size in node.meta["val"].shape
        if isinstance(size, torch.SymInt)
    )
    return {str(s.expr): SizeRange(s.hint, s.hint, s.hint) for s in sizes if s.expr.is_Symbol}


def _eager(sample: Sample) -> list[T]:
    try:
        want = sample.answers()
    except RuntimeError as error:
        raise _Untried(f"PyTorch itself: {_first_line(error)}") from error
    if not want:
        raise _Untried("answers no tensor")
    return want


def _can_be_held(sample: Sample) -> None:
    for tensor in sample.tensors:
        if tensor.layout != torch.strided:
            raise _Untried("takes a sparse tensor")
        if tensor.is_complex():
            raise _Untried("takes a complex tensor")
    if not sample.tensors:
        raise _Untried("takes no tensor")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise _TooLate("takes too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _short(op: str) -> str:
    return op.removesuffix(".default")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _raised_at(error: Exception) -> str:
    """Where in the product an unexpected error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/trtpack" in f.filename or "trtpack_runtime" in f.filename]
    if not own:
        return ""
    return f" ({own[-1].filename.rsplit('/', 1)[-1]}:{own[-1].lineno})"
