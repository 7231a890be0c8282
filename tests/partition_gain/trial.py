# SPDX-License-Identifier: Apache-2.0
"""One model: three operators forced to PyTorch, its partitions built and timed on this machine."""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.zoo import MODELS
from trtpack.building import assemble_all, bench_for, look_around
from trtpack.capture import Captured, capture
from trtpack.engine_options import TENSORRT_KINDS
from trtpack.golden import copied
from trtpack.livening import liven
from trtpack.lowering import Lowered, lower
from trtpack.options import Options
from trtpack.partition_measuring import built_plan
from trtpack.plan_timing import in_turns
from trtpack.planning import Planned, plan
from trtpack.report import Progress
from trtpack.segments import PlannedSegment, computes
from trtpack.target import find_target
from trtpack_runtime.tf32 import full_float32

FORCED = 3
LEAST = 5
"""The smallest segment of the plain partition."""
WAYS = (("by cost", None), ("maximal", LEAST), ("all PyTorch", 10**9))
"""The ways to divide, with the smallest segment of each."""

Found = dict[str, Any]


@dataclass(frozen=True)
class How:
    """What models are built for, with which engines (``--engine``; None: the target's own), at
    which of TensorRT's optimisation levels, and for how many seconds they are timed; ``seed`` draws
    the operators that are forced to PyTorch."""

    target: str = "cpu"
    engine: str | None = None
    level: int | None = None
    seed: int = 0
    seconds: float = 8.0

    def options(self) -> Options:
        """A build's."""
        if self.target == "cpu":
            return Options((self.target,), engine="inductor", threads=1)
        return Options((self.target,), engine=self.engine, optimization_level=self.level)


def trial(
    name: str, how: How, quiet: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Found:
    """What a model's partitions take on this machine, with engines as ``trtpack build`` makes them:
    median milliseconds, and ratios with intervals.

    On a CPU one thread runs engines of AOTInductor, and its own time counts. Elsewhere products of
    float32 are not rounded, in PyTorch as on engines. They are built before and timed within
    ``quiet``.
    """
    on_cpu = how.target == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    options = how.options()
    args, lowered = prepared(name)
    chosen = find_target(how.target, options.engine)
    forced = drawn(lowered.captured, how.seed)
    failed = dict.fromkeys(forced, "forced")
    plans = {
        way: plan(lowered, chosen, options, failed=failed, min_block_size=least)
        for way, least in WAYS
    }
    inputs = [arg for arg in copied((args, {}))[0] if isinstance(arg, torch.Tensor)]
    with tempfile.TemporaryDirectory(prefix="trtpack-gain-") as folder, full_float32():
        bench = bench_for(name, options, look_around(options, [chosen]), Path(folder))
        calls = {}
        for number, way in enumerate(only_once(plans)):
            place = Path(folder, str(number))
            place.mkdir()
            assembly = assemble_all([lowered.captured], [plans[way]], place)
            calls[way] = built_plan(plans[way], assembly, inputs, bench, Progress())
        with torch.no_grad():
            answers = {way: [value.cpu() for value in call()] for way, call in calls.items()}
        with quiet():
            clock = time.process_time if on_cpu else time.perf_counter
            found = in_turns(calls, how.seconds, clock)
    return told(plans, forced, found, answers)


def prepared(name: str) -> tuple[tuple[Any, ...], Lowered]:
    """A model's inputs, and the model, captured and lowered."""
    warnings.simplefilter("ignore")
    model, args, _ = MODELS[name]()
    liven(model, args)  # as good as equal numbers would be sorted in any order
    with torch.no_grad():
        return args, lower(capture(model, copied((args, {}))[0]))


def only_once(plans: Mapping[str, Planned]) -> dict[str, Planned]:
    """The plans without those that are the one by cost."""
    own = plans["by cost"]
    return {way: plan for way, plan in plans.items() if plan is own or not alike(plan, own)}


def told(
    plans: Mapping[str, Planned],
    forced: Sequence[str],
    found: Mapping[str, Sequence[float]],
    answers: Mapping[str, Sequence[Any]],
) -> Found:
    """What was found of a model, for the page."""
    own, right = found["by cost"], answers.get("all PyTorch", answers["by cost"])
    return {
        "forced": sorted(forced),
        "segments": {way: described(plan) for way, plan in plans.items()},
        "ms": {way: 1e3 * statistics.median(times) for way, times in found.items()},
        "to maximal": ratio(found.get("maximal", own), own),
        "to all PyTorch": ratio(found.get("all PyTorch", own), own),
        "same": "maximal" not in found,
        "error": max(apart(got, right) for got in answers.values()),
        "predicted_ms": predicted(plans["by cost"]),
    }


def alike(one: Planned, other: Planned) -> bool:
    """Whether two plans run the same operators in the same segments."""
    return segments_of(one) == segments_of(other)


def segments_of(one: Planned) -> list[tuple[bool, list[str]]]:
    """Each segment: whether it is an engine, and its nodes."""
    return [
        (
            is_engine(one, segment),
            [n.name for n in segment.graph_module.graph.nodes if n.op == "call_function"],
        )
        for segment in one.plan.segments
    ]


def is_engine(one: Planned, segment: PlannedSegment) -> bool:
    """Whether one of the target's engines runs a segment; beside TensorRT's, what PyTorch runs may
    be compiled too."""
    if one.target.engine_kind in TENSORRT_KINDS:
        return segment.kind == "tensorrt"
    return segment.compiled


def drawn(captured: Captured, seed: int) -> list[str]:
    """The operators that are forced to PyTorch, by node."""
    nodes = [n.name for n in captured.graph_module.graph.nodes if computes(n)]
    return random.Random(seed).sample(nodes, min(FORCED, len(nodes)))


def described(one: Planned) -> str:
    """``E12 p1 E30``: the operators of each segment, on an engine or in PyTorch."""
    return " ".join(
        f"{'E' if is_engine(one, segment) else 'p'}{segment.operators.total()}"
        for segment in one.plan.segments
    )


def predicted(one: Planned) -> float | None:
    """The milliseconds a plan was chosen by."""
    prediction = one.plan.prediction
    return None if prediction is None else prediction.us / 1e3


def ratio(other: Sequence[float], own: Sequence[float]) -> list[float]:
    """How many times as long the other takes: the median over rounds, and its 95 % interval by
    order statistics."""
    ratios = sorted(a / b for a, b in zip(other, own, strict=True))
    count = len(ratios)
    off = round(0.98 * math.sqrt(count))  # of the binomial distribution, both sides
    low, high = max(0, count // 2 - off), min(count - 1, count // 2 + off)
    return [statistics.median(ratios), ratios[low], ratios[high]]


def apart(some: Sequence[Any], others: Sequence[Any]) -> float:
    """The largest relative L2 distance of two plans' answers."""
    worst = 0.0
    for one, other in zip(some, others, strict=True):
        if not one.is_floating_point():
            worst = max(worst, float((one != other).double().mean()))
            continue
        size = other.double().norm().item()
        worst = max(worst, (one.double() - other.double()).norm().item() / (size or 1.0))
    return worst
