# SPDX-License-Identifier: Apache-2.0
"""The steps of a run on a GPU that is a double: its events, its sensors, its memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.bundles import write_tiny
from tests.runtime.run_reports import smoke
from trtpack_runtime.bench import Plan
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.cli.run_steps import Settings, run_steps
from trtpack_runtime.engines import Verdict
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.manifest import Limits
from trtpack_runtime.resolve import Candidate, Choice
from trtpack_runtime.run_report import RunReport, TensorFacts
from trtpack_runtime.sensors import Reading
from trtpack_runtime.smoke_report import SmokeReport
from trtpack_runtime.vitals import Watch

MB = 1_000_000
FACTS: dict[str, Any] = {
    "gpus": [{"index": 1, "name": "Orin", "sm": "8.7", "integrated": False}],
    "driver": {"version": "540.4.0", "cuda": "12.6"},
}


class Clock:
    """A GPU's: work is done 1 ms after it was asked for, and nobody waits for it."""

    asynchronous = True

    def __init__(self) -> None:
        self.at_ms = 0.0

    def mark(self) -> float:
        return self.at_ms

    def wait(self) -> None:
        time.sleep(1e-4)

    def elapsed_ms(self, begin: float, end: float) -> float:
        return end - begin


class Sensors:
    """Hot, and 700 MB fuller once something is loaded."""

    source, every_s = "NVML", 0.01
    used = 100 * MB

    def limits(self) -> Mapping[str, float]:
        return {"sm_max_mhz": 2000.0, "power_limit_w": 60.0}

    def read(self) -> Reading:
        return Reading({"sm_mhz": 1500.0, "temperature_c": 81, "power_w": 55.5}, ("power cap",))

    def memory(self) -> Mapping[str, int]:
        return {"used_bytes": self.used}

    def close(self) -> None:
        pass


class Subject:
    """A loaded bundle that needs no torch."""

    device, degraded, settings, start = "cuda:1", False, {"cuda_graphs": True}, dict[str, Any]()
    failed: Mapping[str, str] = {}
    uncompiled: Mapping[str, str] = {}

    def __init__(self, bundle: Bundle, stateful: bool) -> None:
        self.bundle, self.clock, self.built = bundle, Clock(), dict[str, Any]()
        self.stateful, self.journal = stateful, list[str]()
        candidate = Candidate("orin", Verdict("exact", "as built"), {})
        self.choice = Choice(candidate, False, (candidate,))

    def segments(self, method: str) -> tuple[tuple[str, str], ...]:
        return (("forward_0", "tensorrt"), ("forward_1", "tensorrt"))

    def inputs(self, method: str, files: Sequence[str]) -> Sequence[str]:
        return ["x"]

    def call(self, method: str, inputs: Sequence[str]) -> Sequence[str]:
        self.clock.at_ms += 1.0
        self.journal.append("call")
        return ["y", "found"]

    def smoke(self, method: str) -> SmokeReport:
        return smoke()

    def reset(self, method: str | None = None) -> None:
        self.journal.append("reset")

    def told(self, name: str, value: Any, values: bool = False) -> TensorFacts:
        return TensorFacts(name, "float32", (4, 3), 48)

    def labels(self, outputs: Sequence[Any]) -> list[list[tuple[str, float]]]:
        return []

    def write(self, path: Path, outputs: Mapping[str, Any]) -> None:
        self.journal.append(f"write {path} {list(outputs)}")

    def gpu_peak_bytes(self) -> int:
        return 40 * MB


def run(
    folder: Path, stateful: bool = False, built: bool = False, **settings: Any
) -> tuple[RunReport, str, Subject]:
    state: dict[str, Any] = {} if stateful else {"state": []}
    bundle = open_bundle(write_tiny(folder / "tiny.tar", **state))
    subject, sensors, said = Subject(bundle, stateful), Sensors(), list[str]()
    watch = Watch(sensors)
    if built:
        sensors.used = 9000 * MB
        subject.built = {"forward_0": {"source": "built", "build_seconds": 9, "told": "built"}}
        time.sleep(0.03)  # what builds the engine takes more than what runs it
    sensors.used = 800 * MB
    chosen = Settings(plan=Plan(2, 20), **settings)
    report = run_steps(subject, chosen, watch, FACTS, 0.5, said.append)
    watch.close()
    return report, "\n".join(said), subject


def test_a_gpu_is_timed_watched_and_weighed(tmp_path: Path) -> None:
    report, text, subject = run(tmp_path)
    (method,) = report.methods
    assert method.bench is not None
    assert method.bench.gpu is not None
    assert (method.bench.gpu.p50_ms, method.bench.items_per_call) == (1.0, 4)
    assert method.bench.overlapped
    assert subject.journal == ["reset", *["call"] * (2 + 20 + 20), "reset"]
    assert report.memory is not None
    assert (report.memory.gpu_bytes, report.memory.gpu_source) == (700 * MB, "device")
    assert "runs on cuda:1 (Orin): 2 segments in TensorRT" in text
    assert "\n  GPU   1.0" in text
    assert "  1500 of 2000 MHz, 81 C, 55.5 W of 60 W  (NVML)\n  THROTTLED: power cap (100%)" in text
    assert "most memory: GPU 700 MB (40 MB of it PyTorch's tensors), main memory " in text
    assert report.machine["driver"] == "540.4.0"


def test_state_is_put_back_before_every_call(tmp_path: Path) -> None:
    report, text, subject = run(tmp_path, stateful=True)
    assert subject.journal == ["reset", *["reset", "call"] * (2 + 20 + 20), "reset"]
    assert "without waiting between calls" not in text
    assert report.methods[0].bench is not None
    assert not report.methods[0].bench.overlapped


def test_what_builds_engines_is_not_weighed(tmp_path: Path) -> None:
    report, _, _ = run(tmp_path, built=True)
    assert report.memory is not None
    assert report.memory.gpu_bytes == 700 * MB


def test_a_gpus_memory_is_what_a_limit_is_for(tmp_path: Path) -> None:
    report, text, _ = run(tmp_path, limits=Limits(1e3, 699))
    assert [check.passed for check in report.limits] == [True, False]
    assert "  ✗  memory   GPU memory 700 MB, at most 699 MB wanted (command line)" in text


def test_outputs_are_written_by_name(tmp_path: Path) -> None:
    _, text, subject = run(tmp_path, output=tmp_path / "out.npz")
    assert f"write {tmp_path}/out.npz ['y', 'found']" in subject.journal
    assert f"wrote {tmp_path}/out.npz" in text


def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no method 'decode', it has forward"):
        run(tmp_path, methods=("decode",))
