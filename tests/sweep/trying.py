# SPDX-License-Identifier: Apache-2.0
"""Tries samples: traced, lowered, converted, evaluated, compared and built."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
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
    """What comes of each sample from the ``begin``-th on.

    Every second one is tried with its further tensors as weights, and one that is refused in both
    ways.
    """
    target, built = find_target(settings.target), set[str]()
    found = (s for s in samples(operator, dtype, settings.most) if s.index >= begin)
    for sample, captured in _traced(found, settings, weights_first=False):
        state, reason = _outcome(sample, captured, target, settings, built)
        has_other = len(sample.tensors) > 1 and not reason.endswith("no converter")
        if state == "refused" and has_other:
            ((_, other),) = _traced([sample], settings, weights_first=True)
            again, why = _outcome(sample, other, target, settings, built)
            state, reason = (state, reason) if again in ("refused", "untried") else (again, why)
        yield Outcome(operator, dtype, sample.index, state, reason, sample.text)


def _traced(
    found: Iterable[Sample], settings: Settings, *, weights_first: bool
) -> list[tuple[Sample, Captured | str]]:
    """Each sample's graph, or why there is none."""
    traced: list[tuple[Sample, Captured | str]] = []
    with tracing() as trace:
        for sample in found:
            weights = len(sample.tensors) > 1 and bool(sample.index % 2) is not weights_first
            try:
                with _at_most(SECONDS):
                    _can_be_held(sample)
                    captured = trace(sample, weights=weights, dynamic=settings.dynamic)
                traced.append((sample, captured))
            except _Untried as error:
                traced.append((sample, str(error)))
            except Exception as error:
                traced.append((sample, f"cannot be traced: {_first_line(error)}"))
    return traced


def _outcome(
    sample: Sample, captured: Captured | str, target: Target, settings: Settings, built: set[str]
) -> tuple[State, str]:
    if isinstance(captured, str):
        return "untried", captured
    try:
        with _at_most(SECONDS):
            refused = _refused_or_right(sample, _eager(sample), captured, target, settings, built)
    except _Untried as error:
        return "untried", str(error)
    except _Wrong as error:
        return "wrong", str(error)
    except _TooLate:
        return "wrong", f"takes more than {SECONDS:.0f} s"
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {_first_line(error)}{_raised_at(error)}"
    return ("refused", refused) if refused else ("right", "")


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
    if found := difference(sample, _evaluated(sample, module, segment), want):
        raise _Wrong(found)
    if target.engine_kind == "tensorrt-rtx" and len(built) < settings.builds:
        built.add(segment.network.digest())
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
