# SPDX-License-Identifier: Apache-2.0
"""One model: three operators forced to PyTorch, its partitions built and timed on this machine."""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.zoo import MODELS
from trtpack.building import assemble_all, bench_for, look_around
from trtpack.capture import Captured, capture
from trtpack.convert import signature
from trtpack.golden import copied
from trtpack.livening import liven
from trtpack.lowering import Lowered, lower
from trtpack.options import EngineKind, Options
from trtpack.packing import store_parameters, write_weights
from trtpack.partition import Plan, partition
from trtpack.partition_measuring import built_plan
from trtpack.plan_timing import Call, callable_plan, in_turns
from trtpack.planning import plan as plan_for
from trtpack.program import Assembled, assemble
from trtpack.report import Progress
from trtpack.segments import computes
from trtpack.target import find_target
from trtpack.weights import WeightStore
from trtpack_runtime import dims
from trtpack_runtime.engines import _inductor_build
from trtpack_runtime.safetensors import open_safetensors
from trtpack_runtime.smoke import full_float32

FORCED = 3
LEAST = 5
"""The smallest segment of the plain partition."""

Found = dict[str, Any]


def trial(name: str, seed: int, seconds: float) -> Found:
    """What a model's partitions take on this CPU: median milliseconds, ratios with intervals."""
    torch.set_num_threads(1)
    args, lowered = prepared(name)
    captured = lowered.captured
    forced = drawn(captured, seed)
    plans = {
        "by cost": divided(captured, forced, None),
        "maximal": divided(captured, forced, LEAST),
        "all PyTorch": divided(captured, forced, 10**9),
    }
    distinct = only_once(plans)
    with tempfile.TemporaryDirectory(prefix="trtpack-gain-") as folder:
        calls = ready(captured, distinct, args, Path(folder))
        with torch.no_grad():
            answers = {way: call() for way, call in calls.items()}
        found = in_turns(calls, seconds, time.process_time)
    return told(plans, forced, found, answers)


def trial_on(
    target: str,
    name: str,
    seed: int,
    seconds: float,
    level: int | None = None,
    engine: EngineKind | None = None,
) -> Found:
    """The same on another target that is at hand, with engines as ``trtpack build`` makes them.

    ``level`` is TensorRT's optimisation level, ``engine`` another kind than the target's own.
    Products of float32 are not rounded, in PyTorch as on engines.
    """
    args, lowered = prepared(name)
    chosen = find_target(target, engine)
    forced = drawn(lowered.captured, seed)
    options = Options((target,), engine=engine, optimization_level=level)
    failed = dict.fromkeys(forced, "forced")
    planned = {
        way: plan_for(lowered, chosen, options, failed=failed, min_block_size=least)
        for way, least in (("by cost", None), ("maximal", LEAST), ("all PyTorch", 10**9))
    }
    plans = {way: one.plan for way, one in planned.items()}
    inputs = [arg for arg in copied((args, {}))[0] if isinstance(arg, torch.Tensor)]
    with tempfile.TemporaryDirectory(prefix="trtpack-gain-") as folder, full_float32():
        bench = bench_for(name, options, look_around(options, [chosen]), Path(folder))
        calls = {}
        for number, way in enumerate(only_once(plans)):
            place = Path(folder, str(number))
            place.mkdir()
            assembly = assemble_all([lowered.captured], [planned[way]], place)
            calls[way] = built_plan(planned[way], assembly, inputs, bench, Progress())
        with torch.no_grad():
            answers = {way: [value.cpu() for value in call()] for way, call in calls.items()}
        found = in_turns(calls, seconds)
    return told(plans, forced, found, answers)


def prepared(name: str) -> tuple[tuple[Any, ...], Lowered]:
    """A model's inputs, and the model, captured and lowered."""
    warnings.simplefilter("ignore")
    model, args, _ = MODELS[name]()
    liven(model, args)  # as good as equal numbers would be sorted in any order
    with torch.no_grad():
        return args, lower(capture(model, copied((args, {}))[0]))


def only_once(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """The plans without those that are the one by cost."""
    own = plans["by cost"]
    return {way: plan for way, plan in plans.items() if plan is own or not alike(plan, own)}


def told(
    plans: Mapping[str, Plan],
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


def alike(one: Plan, other: Plan) -> bool:
    """Whether two plans run the same operators in the same segments."""
    return segments_of(one) == segments_of(other)


def segments_of(plan: Plan) -> list[tuple[bool, list[str]]]:
    """Each segment: whether it is an engine, and its nodes."""
    return [
        (s.compiled, [n.name for n in s.graph_module.graph.nodes if n.op == "call_function"])
        for s in plan.segments
    ]


def drawn(captured: Captured, seed: int) -> list[str]:
    """The operators that are forced to PyTorch, by node."""
    nodes = [n.name for n in captured.graph_module.graph.nodes if computes(n)]
    return random.Random(seed).sample(nodes, min(FORCED, len(nodes)))


def divided(captured: Captured, forced: Sequence[str], least: int | None) -> Plan:
    """The partition by cost, or with ``least`` the maximal one."""
    return partition(
        captured.graph_module,
        find_target("cpu"),
        refused=dict.fromkeys(forced, "forced"),
        min_block_size=least,
        divided=True,
        ranges=captured.ranges,
    )


def described(plan: Plan) -> str:
    """``E12 p1 E30``: the operators of each segment, on an engine or in PyTorch."""
    return " ".join(f"{'E' if s.compiled else 'p'}{s.operators.total()}" for s in plan.segments)


def predicted(plan: Plan) -> float | None:
    """The milliseconds a plan was chosen by."""
    return None if plan.prediction is None else plan.prediction.us / 1e3


def ready(
    captured: Captured, plans: Mapping[str, Plan], args: tuple[Any, ...], folder: Path
) -> dict[str, Call]:
    """Every plan compiled and loaded; segments that are the same are compiled once."""
    store = WeightStore()
    names = store_parameters(captured, store)
    programs = {way: assemble(captured, plan, {}, store, "forward") for way, plan in plans.items()}
    written = write_weights(store, names, folder)
    stored = {n: v.tensor() for n, v in open_safetensors(written.path).items()}
    inputs = [arg for arg in copied((args, {}))[0] if isinstance(arg, torch.Tensor)]
    known: dict[str, tuple[str, Path, Mapping[str, Any]]] = {}
    calls = {}
    for way, plan in plans.items():
        built = compiled(captured, plan, programs[way], written.path, folder, known)
        cpu = torch.device("cpu")
        calls[way] = callable_plan(captured, programs[way], stored, built, inputs, cpu)
    return calls


def compiled(
    captured: Captured,
    plan: Plan,
    assembled: Assembled,
    weights: Path,
    folder: Path,
    known: dict[str, tuple[str, Path, Mapping[str, Any]]],
) -> dict[str, tuple[str, Path, Mapping[str, Any]]]:
    """The engines of a plan, compiled in this process: one after the other they share headers and
    kernels that are compiled already."""
    found = {}
    graphs = {s.name: s for s in plan.segments}
    for segment in assembled.program.segments:
        if not graphs[segment.name].compiled:
            continue
        inputs, profile = signature(graphs[segment.name].graph_module, captured.ranges)
        assert profile is None, "sizes are fixed here"
        key = hashlib.sha256(json.dumps(segment.graph, sort_keys=True).encode()).hexdigest()
        if key not in known:
            output = folder / f"{key[:16]}.pt2"
            request = {
                "graph": segment.graph,
                "weights": [str(weights)],
                "inputs": [
                    {"name": t.name, "dtype": t.dtype, "shape": [dims.to_json(d) for d in t.shape]}
                    for t in inputs
                ],
                "profile": {},
                "imports": [],
                "output": str(output),
                "device": "cpu",
                "config": {},
            }
            record = _inductor_build._build(request, folder)
            known[key] = ("inductor", output, record)
        found[segment.name] = known[key]
    return found


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
