# SPDX-License-Identifier: Apache-2.0
"""A build report as text and as JSON, and the progress that times it."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import time

import pytest

from trtpack.report import (
    SCHEMA,
    Agreement,
    BuildReport,
    BundleReport,
    EngineReport,
    Progress,
    RefusedOperator,
    SegmentReport,
    StepTime,
    TacticReport,
    TargetReport,
    ValueReport,
)
from trtpack.report.text import seconds_text, size_text

X = ValueReport("x", "float32", ("1/4/8", 3, 32, 32))
H = ValueReport("h", "float32", ("1/4/8", 8))
Y = ValueReport("y", "float32", ("1/4/8", 10))

PLAN = (
    SegmentReport("forward_0", "tensorrt", {"aten.convolution.default": 6}, (X,), (H,), 9),
    SegmentReport("forward_1", "torch", {"aten.sort.stable": 1, "aten.neg.default": 1}, (H,), (H,)),
    SegmentReport("forward_2", "tensorrt", {"aten.linear.default": 5}, (H,), (Y,), 12),
)
REFUSED = (RefusedOperator("aten.sort.stable", 1, "no converter", ("head (net.py:12)",)),)
REPORT = BuildReport(
    name="net",
    parameters=11_689_512,
    parameter_bytes=46_758_048,
    inputs=(X,),
    outputs=(Y,),
    operators={"aten.convolution.default": 6, "aten.sort.stable": 1, "aten.linear.default": 5},
    passes={"drop_asserts": 0, "fold_batch_norm": 3},
    targets=(
        TargetReport(
            "rtx-4090",
            "GeForce RTX 4090",
            "tensorrt-rtx",
            "tensorrt-rtx-1.7",
            PLAN,
            REFUSED,
            (
                EngineReport("forward_0", "tensorrt-rtx", 1_500_000, 12.34),
                EngineReport(
                    "forward_2",
                    "tensorrt-rtx",
                    2_000,
                    cached=True,
                    age_seconds=7300,
                    weights="inside",
                ),
            ),
            (Agreement("golden/0", "y", 1e-5, 2e-6, 0.9999999),),
        ),
        TargetReport(
            "orin",
            "Jetson AGX Orin 64GB",
            "tensorrt",
            "jetpack-6.2",
            (dataclasses.replace(PLAN[0], layers=11), *PLAN[1:]),
            REFUSED,
            (EngineReport("forward_0", "tensorrt", deferred="no such GPU here " * 9),),
        ),
    ),
    bundle=BundleReport("out/net.tar", 48_000_000, 46_758_048),
    call="torch.randn(4, 3, 32, 32)",
    notes=("net: random weights; give trained ones with --weights",),
    steps=(StepTime("capture", 1.5), StepTime("write", 0.2)),
)

WANTED = """\
net: 11.69 M parameters, 46.8 MB
  input   x  float32  1/4/8x3x32x32
  output  y  float32  1/4/8x10

12 operators after lowering (fold_batch_norm 3)

rtx-4090, orin: 2 TensorRT segments and 1 PyTorch segment
  Supported operators: 11, of 2 kinds
       6 aten.convolution.default     5 aten.linear.default
  Unsupported operators: 1
       1 aten.sort.stable: no converter
         at head (net.py:12)
         1 supported operator beside them, in PyTorch too
  forward_0  TensorRT  6 operators  (1/4/8x3x32x32) -> (1/4/8x8)
  forward_1  PyTorch   2 operators  (1/4/8x8) -> (1/4/8x8)
  forward_2  TensorRT  5 operators  (1/4/8x8) -> (1/4/8x10)

Engines
  rtx-4090  forward_0  tensorrt-rtx  1.5 MB  built in 12.3 s
  rtx-4090  forward_2  tensorrt-rtx  2.0 kB  from the cache, built 2 hours ago, weights inside
  orin      forward_0  deferred: no such GPU here no such GPU here no such GPU here no such GPU here
      no such GPU here no such GPU here no such GPU here no such GPU here no such GPU here

Agreement with the model itself (TensorRT segments evaluated, worst golden sample)
  target    output  max abs  rel. L2  cosine
  rtx-4090  y       1e-05    2e-06    1.000000

Notes
  net: random weights; give trained ones with --weights

Wrote out/net.tar: 48.0 MB (weights 46.8 MB, once for all targets; engines 1.5 MB) in 1.7 s

  import torch, trtpack_runtime
  model = trtpack_runtime.load('out/net.tar')
  outputs = model(torch.randn(4, 3, 32, 32))
"""


def test_is_printed_as_a_user_reads_it() -> None:
    assert REPORT.to_text() == WANTED


@pytest.mark.parametrize(
    ("tactics", "text"),
    [
        (
            TacticReport(1_200_000, None, 2 * 86400),
            "seeded with an opaque cache of 1.2 MB kept 2 days ago",
        ),
        (TacticReport(900, 37), "seeded with 37 tactics"),
        (TacticReport(900, None, None, True), "locked to an opaque cache of 900 B"),
        (TacticReport(900, 37, None, True, 37), "tactics as locked (37 of 37)"),
        (
            TacticReport(900, 37, None, True, 37, on_hardware=False),
            "tactics as locked (37 of 37), not run on hardware",
        ),
        (
            TacticReport(900, None, refused="is damaged"),
            "tactics measured anew: the timing cache is damaged",
        ),
    ],
)
def test_an_engines_tactics_are_told(tactics: TacticReport, text: str) -> None:
    engine = EngineReport("forward_0", "tensorrt", 10, 2.0, weights="stripped", tactics=tactics)
    target = dataclasses.replace(REPORT.targets[0], engines=(engine,))
    report = dataclasses.replace(REPORT, targets=(target,))
    told = " ".join(report.to_text().split())
    assert f"built in 2.0 s, weights stripped, {text}" in told
    plain = report.to_json()["targets"][0]["engines"][0]
    assert plain["tactics"]["known"] == tactics.known
    assert max(map(len, report.to_text().splitlines())) <= 100


def test_the_memory_that_a_build_took_is_told() -> None:
    engine = EngineReport("forward_0", "tensorrt", 10, 2.0, took_bytes=3_200_000_000)
    target = dataclasses.replace(REPORT.targets[0], engines=(engine,))
    report = dataclasses.replace(REPORT, targets=(target,))
    assert "built in 2.0 s, its build took 3.20 GB of the GPU" in " ".join(report.to_text().split())
    assert report.to_json()["targets"][0]["engines"][0]["took_bytes"] == 3_200_000_000


def test_tactics_that_only_travel_are_told_as_such() -> None:
    tactics = TacticReport(900, 37, on_hardware=False)
    engine = EngineReport("forward_0", "tensorrt", deferred="no GPU", tactics=tactics)
    target = dataclasses.replace(REPORT.targets[1], engines=(engine,))
    text = " ".join(dataclasses.replace(REPORT, targets=(target,)).to_text().split())
    wanted = "deferred: no GPU; to begin with 37 tactics of the bundle, not run on hardware"
    assert wanted in text


def test_what_a_build_failed_on_is_told() -> None:
    refused = (
        RefusedOperator("aten.sort.stable", 1, "TensorRT 8.6.0 refused it", ("head",), True),
    )
    target = dataclasses.replace(REPORT.targets[0], refused=refused)
    text = dataclasses.replace(REPORT, targets=(target,)).to_text()
    assert "         kept in PyTorch after TensorRT failed on it\n         at head\n" in text


def test_engines_proved_on_a_gpu_are_told() -> None:
    proved = dataclasses.replace(REPORT.targets[0], proved_on="NVIDIA H200")
    other = dataclasses.replace(REPORT.targets[1], agreement=REPORT.targets[0].agreement)
    text = dataclasses.replace(REPORT, targets=(proved, other)).to_text()
    assert "Agreement with the model itself (worst golden sample)\n" in text
    assert "  rtx-4090  y       1e-05    2e-06    1.000000  NVIDIA H200\n" in text
    assert "  orin      y       1e-05    2e-06    1.000000  evaluator\n" in text


def test_a_plan_writes_nothing() -> None:
    plan = dataclasses.replace(REPORT, bundle=None, dry_run=True)
    assert plan.to_text().endswith("Planned in 1.7 s; nothing was built or written\n")
    assert plan.usage() == ()


def test_targets_with_other_plans_are_shown_apart() -> None:
    first, second = REPORT.targets
    whole = dataclasses.replace(second, segments=PLAN[:1], refused=())
    text = dataclasses.replace(REPORT, targets=(first, whole)).to_text()
    assert "\nrtx-4090: 2 TensorRT segments and 1 PyTorch segment\n" in text
    assert "\norin: 1 TensorRT segment\n" in text
    assert "  Unsupported operators: none\n" in text


def test_lines_are_at_most_100_columns() -> None:
    long = RefusedOperator(
        "my_library.an_operator_with_a_long_name.default",
        3,
        "a reason of many words " * 10,
        tuple(f"backbone.stages.{i}.blocks.1.attention.proj (model.py:{i})" for i in range(9)),
    )
    operators = {f"aten.operator_{'x' * i}.default": i for i in range(1, 40)}
    many = tuple(ValueReport(f"v{i}", "float32", (1, 2, 3, 4)) for i in range(40))
    segment = SegmentReport("forward_0", "tensorrt", operators, many, many)
    target = dataclasses.replace(REPORT.targets[0], segments=(segment,), refused=(long,))
    report = dataclasses.replace(
        REPORT,
        targets=(target,),
        inputs=many,
        notes=("word " * 60,),
        passes={f"pass_number_{i}": i for i in range(20)},
    )
    assert max(map(len, report.to_text().splitlines())) <= 100


def test_a_failed_output_is_named() -> None:
    failed = Agreement("golden/0", "y", None, None, None, "wanted float32 4x10, got float16 4x10")
    target = dataclasses.replace(REPORT.targets[0], agreement=(failed,))
    text = dataclasses.replace(REPORT, targets=(target,)).to_text()
    assert "rtx-4090: y of golden/0: wanted float32 4x10, got float16 4x10" in text


def test_usage_is_python() -> None:
    lines = REPORT.usage()
    assert len(lines) == 3
    ast.parse("\n".join(lines))


def test_json_has_every_figure() -> None:
    worst = Agreement("golden/0", "y", float("inf"), float("nan"), 0.5)
    target = dataclasses.replace(REPORT.targets[0], agreement=(worst,))
    report = dataclasses.replace(REPORT, targets=(target,))
    plain = json.loads(report.to_json_text(), parse_constant=lambda name: pytest.fail(name))
    assert plain["schema"] == SCHEMA
    assert plain["bundle"] == {
        "path": "out/net.tar",
        "nbytes": 48_000_000,
        "weights_bytes": 46_758_048,
    }
    (shown,) = plain["targets"]
    assert shown["supported"] == {"aten.convolution.default": 6, "aten.linear.default": 5}
    assert shown["unsupported"] == {"aten.neg.default": 1, "aten.sort.stable": 1}
    assert shown["refused"][0]["where"] == ["head (net.py:12)"]
    assert shown["agreement"][0]["max_abs"] == "inf"
    assert plain["steps"][0] == {"name": "capture", "seconds": 1.5}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (46_758_048, "46.8 MB"), (2.5e9, "2.50 GB")],
)
def test_sizes(nbytes: float, text: str) -> None:
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (99.9, "99.9 s"), (125, "2 min 05 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_steps_are_timed_also_when_they_fail() -> None:
    progress = Progress()
    with progress.step("good") as step:
        step.detail("half way")
        time.sleep(0.02)
    with pytest.raises(ValueError, match="broken"), progress.step("bad"):
        raise ValueError("broken")
    assert [t.name for t in progress.times] == ["good", "bad"]
    assert progress.times[0].seconds >= 0.02
    assert step.text == "half way"


def fail_after(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("broken")


def test_plain_progress_tells_of_long_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtpack.cli import progress as shown

    stream = io.StringIO()
    progress = shown.progress_for(quiet=False, stream=stream)
    with progress.step("short"):
        pass
    monkeypatch.setattr(shown, "SHOWN_AFTER_SECONDS", 0.05)
    with progress.step("long"):
        time.sleep(0.15)
    with pytest.raises(ValueError, match="broken"), progress.step("doomed"):
        fail_after(0.15)
    assert stream.getvalue().splitlines() == [
        "long ...",
        f"long: {seconds_text(progress.times[1].seconds)}",
        "doomed ...",
        f"doomed: failed after {seconds_text(progress.times[2].seconds)}",
    ]


def test_live_progress_leaves_a_line_for_long_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtpack.cli import progress as shown

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = shown.progress_for(quiet=False, stream=stream)
    monkeypatch.setattr(shown, "SHOWN_AFTER_SECONDS", 600)
    with progress.step("short [1]") as step:
        step.detail("at [it]")
    monkeypatch.setattr(shown, "SHOWN_AFTER_SECONDS", 0)
    with progress.step("long [2]"):
        pass
    lines = [line for line in stream.getvalue().splitlines() if "✓" in line]
    assert len(lines) == 1
    assert "long [2]" in lines[0]


def test_quiet_progress_says_nothing() -> None:
    from trtpack.cli.progress import progress_for

    stream = io.StringIO()
    with progress_for(quiet=True, stream=stream).step("anything") as step:
        step.update(1, 2, "half")
    assert stream.getvalue() == ""
