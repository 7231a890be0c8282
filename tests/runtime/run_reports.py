# SPDX-License-Identifier: Apache-2.0
"""Reports of runs, made by hand."""

from __future__ import annotations

from pathlib import Path

from trtpack_runtime.bench import Bench, Times, Warmup, summarize
from trtpack_runtime.engines import Verdict
from trtpack_runtime.limits import LimitCheck
from trtpack_runtime.resolve import Candidate
from trtpack_runtime.run_comparison import Change, Comparison
from trtpack_runtime.run_report import MethodRun, RunReport, TensorFacts
from trtpack_runtime.smoke_report import Comparison as Judged
from trtpack_runtime.smoke_report import Departure, Metrics, SmokeReport
from trtpack_runtime.vitals import MemoryPeaks, Span, Vitals


def times(p50_ms: float, spread: float = 0.05) -> Times:
    """101 calls, evenly from p50 - spread to p50 + 2 spread; both parts of p50."""
    below = [p50_ms * (1 - spread * i / 50) for i in range(1, 51)]
    above = [p50_ms * (1 + 2 * spread * i / 50) for i in range(1, 51)]
    return summarize([*below, p50_ms, *above])


def bench(p50_ms: float, spread: float = 0.05, gpu: bool = True) -> Bench:
    """A measurement whose calls take so long, nine tenths of it on the GPU."""
    on_gpu = times(0.9 * p50_ms, spread) if gpu else None
    return Bench(Warmup(12, 0.2, True), times(p50_ms, spread), on_gpu, 1e3 / p50_ms, gpu, 8)


def smoke(rel_l2: float = 1e-4, dtype: str = "float32", failure: str | None = None) -> SmokeReport:
    """One output of one sample."""
    metrics = Metrics(rel_l2, rel_l2, 1 - rel_l2, 7, 10)
    judged = Judged("forward-0", "logits", dtype, metrics, failure)
    departure = Departure(
        "forward_0", 1, 2, "tensorrt", "conv1 .. fc", "v0", "its mean differs", True
    )
    return SmokeReport((judged,), () if failure else (departure,))


def report(
    *,
    p50_ms: float = 10.0,
    spread: float = 0.05,
    rel_l2: float = 1e-4,
    kind: str = "tensorrt",
    gpu_bytes: int = 500_000_000,
    driver: str = "540.4.0",
    digest: str = "aa",
    full: bool = False,
) -> RunReport:
    """A run on an Orin; ``full`` has every part that a run can have."""
    image = TensorFacts("image", "float16", (8, 3, 224, 224), 2408448)
    run = MethodRun("forward", (("forward_0", kind),), (image,), smoke(rel_l2), 0.5)
    run.bench = bench(p50_ms, spread)
    found = RunReport(
        bundle=Path("resnet18.tar"),
        digest=digest,
        name="resnet18",
        variant="orin",
        degraded=False,
        device="cuda:0",
        machine={"device": "Orin", "driver": driver, "power_mode": "MAXN"},
        settings={"cuda_graphs": False},
        candidates=[Candidate("orin", Verdict("exact", "as built"), {})],
        built={},
        failed={},
        load_seconds=0.4,
        methods=[run],
        memory=MemoryPeaks(900_000_000, True, gpu_bytes, "process", 50_000_000),
    )
    if full:
        run.segments += (("forward_1", "reference"),)
        run.outputs = (TensorFacts("logits", "float32", (8, 1000), 32000, -3.0, 11.0),)
        run.labels = [[("cat", 0.9)]]
        run.vitals = Vitals(
            "NVML", 12, {"power_w": Span(40, 41.5, 43)}, {"power_limit_w": 60}, {"power cap": 0.5}
        )
        told = {"source": "built", "build_seconds": 61.0, "told": "built here in 61 s"}
        found.built, found.failed = {"forward_0": told}, {"forward_1": "out of memory"}
        found.uncompiled = {"forward_2": "there is no C++ compiler"}
        found.start = {"seconds": {"open": 0.1, "total": 0.1}, "memory": None}
        found.limits = [LimitCheck("forward", "latency", "p99", "ms", 33.0, 11.0, "bundle")]
        change = Change("latency", "forward", "latency p50", 9.0, 10.0, "worse", "slower")
        before = Path("previous.json")
        found.against = Comparison(before, 0.05, ("driver 2, was 1",), (change,), ("rebuilt",))
    return found
