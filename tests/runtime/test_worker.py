# SPDX-License-Identifier: Apache-2.0
"""Engines are built in a child process; what happens to it becomes an error, no file stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.build_jobs import MODULE, chain, left_behind, worker_pids
from trtpack_runtime.engines._build import BuildOptions
from trtpack_runtime.engines._child import BuildJob, ask, build_in_worker
from trtpack_runtime.engines._processes import last_words
from trtpack_runtime.errors import ConfigError, DeviceError, EngineBuildError
from trtpack_runtime.network import Layer, Network, Tensor
from trtpack_runtime.worker import TASKS


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return chain(tmp_path)


def test_a_plan_is_built(job: BuildJob) -> None:
    events: list[Mapping[str, Any]] = []
    result = build_in_worker(replace(job, verbose=True), events.append)
    assert left_behind(job) == ["engine.plan", "weights.safetensors"]
    assert result.plan_bytes == result.plan.stat().st_size > 10_000
    assert result.seconds > 0
    assert result.version.startswith("1.")
    assert {event["phase"] for event in events}
    assert all(0 <= event["step"] <= event["steps"] for event in events)
    assert any(line.startswith("VERBOSE: ") for line in result.log)
    assert result.peak_anonymous_bytes is None or result.peak_anonymous_bytes > 0


def test_a_build_gives_the_same_plan_again(job: BuildJob) -> None:
    first = build_in_worker(job).plan.read_bytes()
    assert build_in_worker(job).plan.read_bytes() == first


def _during_the_build(act: Callable[[], None]) -> Callable[[Mapping[str, Any]], None]:
    """Acts once, at the first progress."""
    acted: list[bool] = []

    def told(event: Mapping[str, Any]) -> None:
        if not acted:
            acted.append(True)
            act()

    return told


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "the TensorRT build of forward_0 was killed"),
        (signal.SIGSEGV, "forward_0 ended by SIGSEGV: (.*; )?Fatal Python error: Segmentation"),
    ],
)
def test_a_child_that_dies_is_an_error(job: BuildJob, number: signal.Signals, message: str) -> None:
    def kill() -> None:
        for pid in worker_pids():
            os.kill(pid, number)

    with pytest.raises(EngineBuildError, match=message) as death:
        build_in_worker(job, _during_the_build(kill))
    assert death.value.hint
    assert left_behind(job) == ["weights.safetensors"]


def test_last_words_are_words() -> None:
    said = ["Traceback ...", "  build(network)", "  ~~~~~^^^^^^^^^", "", "TypeError: no network"]
    assert last_words(said, 2) == ["  build(network)", "TypeError: no network"]


def test_ctrl_c_ends_the_child_and_leaves_nothing(job: BuildJob) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_in_worker(job, _during_the_build(interrupt))
    assert worker_pids() == []
    assert left_behind(job) == ["weights.safetensors"]


def test_a_child_asked_to_stop_cancels(job: BuildJob) -> None:
    def ask() -> None:
        for pid in worker_pids():
            os.kill(pid, signal.SIGTERM)

    with pytest.raises(EngineBuildError, match="forward_0: the build was cancelled"):
        build_in_worker(job, _during_the_build(ask))
    assert left_behind(job) == ["weights.safetensors"]


def test_a_child_does_not_outlive_its_parent(job: BuildJob, tmp_path: Path) -> None:
    (tmp_path / "network").write_bytes(job.network.to_bytes())
    script = f"""
        import os
        from pathlib import Path
        from trtpack_runtime import network
        from trtpack_runtime.engines._build import BuildOptions
        from trtpack_runtime.engines._child import BuildJob, build_in_worker
        def told(event):
            print("started", flush=True)
        here = Path({str(tmp_path)!r})
        loaded = network.from_bytes((here / "network").read_bytes())
        build_in_worker(
            BuildJob({MODULE!r}, loaded, (here / "weights.safetensors",), here / "engine.plan",
                     BuildOptions(("SM89",))),
            told,
        )
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True, check=True
    )
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    for pid in map(int, children.stdout.split()):
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "zombie" in status.read_text()


def test_a_refused_layer_is_told_with_its_origin(job: BuildJob) -> None:
    x = Tensor("x", "FLOAT", (1, 3, 8, 8))
    attributes = {
        "type": "MAX",
        "window_size": (2, 2),
        "stride_nd": (2, 2),
        "pre_padding": (-1, 0),
        "post_padding": (0, 0),
        "padding_mode": "EXPLICIT_ROUND_DOWN",
    }
    pool = Layer("pooling_nd", "p", {"input": "x"}, attributes, ("p",), "net.pool (net.py:7)")
    network = Network((x,), ("p",), {}, (pool,), {"p": Tensor("p", "FLOAT", (1, 3, 4, 4))})
    message = r"forward_0: pooling_nd 'p' \(net.pool \(net.py:7\)\): TensorRT refused it"
    with pytest.raises(EngineBuildError, match=message) as refusal:
        build_in_worker(replace(job, network=network))
    assert (refusal.value.layers, refusal.value.layer) == (("p",), "p")
    assert left_behind(job) == ["weights.safetensors"]


def test_a_missing_tensorrt_is_told(job: BuildJob) -> None:
    with pytest.raises(DeviceError, match="forward_0: cannot import tensorrt_9000"):
        build_in_worker(replace(job, module="tensorrt_9000"))


def test_a_plan_nobody_can_write_is_told(job: BuildJob) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        build_in_worker(replace(job, plan=job.plan.parent / "absent" / "engine.plan"))


def test_the_worker_needs_neither_torch_nor_numpy_nor_click() -> None:
    script = """
        import sys
        import trtpack_runtime.worker
        print(sorted({"torch", "numpy", "click", "rich"} & set(sys.modules)))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_a_network_that_cannot_fit_is_refused_before_the_build(job: BuildJob) -> None:
    events: list[Mapping[str, Any]] = []
    message = r"forward_0: this network needs about \d+\.\d KiB, the GPU has 100 bytes"
    with pytest.raises(DeviceError, match=message):
        build_in_worker(replace(job, memory_bytes=100), events.append)
    assert (events, left_behind(job)) == ([], ["weights.safetensors"])


def test_the_worker_is_asked_with_files_and_answers_with_files(job: BuildJob) -> None:
    network = job.plan.parent / "stored network"
    network.write_bytes(job.network.to_bytes())
    asked = {
        "weights": [str(path) for path in job.weights],
        "options": BuildOptions(("SM89",), optimization_level=0).to_json(),
    }
    answer = ask(
        MODULE,
        "build",
        asked,
        name="forward_0",
        inputs={"network.json": network},
        outputs={"plan": job.plan},
    )
    assert answer["plan_bytes"] == job.plan.stat().st_size
    assert answer["version"].startswith("1.")
    assert left_behind(job) == ["engine.plan", "stored network", "weights.safetensors"]
    with pytest.raises(ConfigError, match="cannot write"):
        ask(MODULE, "build", {}, name="x", outputs={"plan": job.plan / "no folder" / "x"})


def test_every_task_has_its_function() -> None:
    for module, function in TASKS.values():
        assert callable(getattr(import_module(f"trtpack_runtime.engines.{module}"), function))
