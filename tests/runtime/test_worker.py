# SPDX-License-Identifier: Apache-2.0
"""Engines are built in a child process; what happens to it becomes an error, no file stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from trtpack_runtime.dims import dim
from trtpack_runtime.engines import Verdict, _tactics, tensorrt, tensorrt_rtx
from trtpack_runtime.engines._build import BuildOptions
from trtpack_runtime.engines._child import BuildJob, ask, build_in_worker
from trtpack_runtime.errors import BuildCancelled, ConfigError, DeviceError, EngineBuildError
from trtpack_runtime.network import Layer, Network, Profile, Tensor
from trtpack_runtime.safetensors import TensorView, write_safetensors
from trtpack_runtime.worker import TASKS
from trtpack_tools.recorder import Recorder

MODULE = "tensorrt_rtx"
CHAIN = 24


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    """A chain of products with a dynamic batch, enough for several seconds of building."""
    pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed here")
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 64)))
    views = []
    for index in range(CHAIN):
        name = f"layers.{index}.weight"
        value = torch.rand(64, 64, generator=torch.Generator().manual_seed(index))
        views.append(TensorView(name, "F32", (64, 64), memoryview(value.numpy()).cast("B")))
        weight = recorder.constant("FLOAT", (64, 64), name)
        (x,) = recorder.add(
            "matrix_multiply",
            {"input0": x, "input1": weight},
            {"op0": "NONE", "op1": "NONE"},
            name=f"layers.{index}",
        )
        (x,) = recorder.add("softmax", {"input": x}, {"axes": (1,)}, name=f"softmax.{index}")
    network = recorder.finish([x.name], [Profile({"x": ((1, 64), (4, 64), (8, 64))})])
    weights = tmp_path / "weights.safetensors"
    write_safetensors(weights, views)
    return BuildJob(
        MODULE, network, (weights,), tmp_path / "engine.plan", BuildOptions(("SM89",)), "forward_0"
    )


def left_behind(job: BuildJob) -> list[str]:
    """What lies beside the weights."""
    return sorted(path.name for path in job.plan.parent.iterdir())


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


def _worker_pids() -> list[int]:
    """The workers that are children of this process, quicker than ``ps`` tells."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if b"trtpack_runtime.worker" in Path("/proc", pid, "cmdline").read_bytes():
                    found.append(int(pid))
    return found


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "the TensorRT build of forward_0 was killed"),
        (signal.SIGSEGV, "the TensorRT build of forward_0 ended by SIGSEGV"),
    ],
)
def test_a_child_that_dies_is_an_error(job: BuildJob, number: signal.Signals, message: str) -> None:
    def kill() -> None:
        for pid in _worker_pids():
            os.kill(pid, number)

    with pytest.raises(EngineBuildError, match=message) as death:
        build_in_worker(job, _during_the_build(kill))
    assert death.value.hint
    assert left_behind(job) == ["weights.safetensors"]


def test_ctrl_c_ends_the_child_and_leaves_nothing(job: BuildJob) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_in_worker(job, _during_the_build(interrupt))
    assert _worker_pids() == []
    assert left_behind(job) == ["weights.safetensors"]


def test_a_child_asked_to_stop_cancels(job: BuildJob) -> None:
    def ask() -> None:
        for pid in _worker_pids():
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


# doubles of TensorRT in the child


@pytest.fixture
def doubled(
    request: pytest.FixtureRequest, job: BuildJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BuildJob:
    """The job for a double in TensorRT's place, whose builds wait while a file ``wait`` is there.

    Release 8 tells no progress and takes only arrays as weights.
    """
    folder = tmp_path / "modules"
    (folder / "tensorrt").mkdir(parents=True)
    (folder / "tensorrt" / "__init__.py").write_text(
        textwrap.dedent(f"""
            import time
            from pathlib import Path
            from tests.runtime.trt_double import double
            trt = double({getattr(request, "param", "8.6")!r})
            build = trt.Builder.build_serialized_network
            def waiting(*arguments):
                here = Path({str(folder)!r})
                (here / "building").touch()
                while (here / "wait").exists():
                    time.sleep(0.05)
                return build(*arguments)
            trt.Builder.build_serialized_network = waiting
            import sys
            sys.modules[__name__] = trt
        """)
    )
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
    return replace(job, module="tensorrt", options=BuildOptions())


def test_release_8_builds_in_the_worker(doubled: BuildJob) -> None:
    result = build_in_worker(doubled)
    assert result.version == "8.6.2"
    assert result.tactics
    assert result.entries is None
    measured = build_in_worker(replace(doubled, tactics=result.tactics))
    assert measured.tactics == result.tactics


@pytest.mark.parametrize(
    ("number", "at", "kind"),
    [
        (signal.SIGTERM, _worker_pids, BuildCancelled),
        (signal.SIGINT, lambda: [os.getpid()], KeyboardInterrupt),
    ],
)
def test_a_build_without_progress_stops_at_once(
    doubled: BuildJob,
    number: signal.Signals,
    at: Callable[[], list[int]],
    kind: type[BaseException],
) -> None:
    folder = doubled.plan.parent / "modules"
    (folder / "wait").touch()

    def stop() -> None:
        while not (folder / "building").exists():
            time.sleep(0.02)
        for pid in at():
            os.kill(pid, number)
        stopped.append(time.monotonic())

    stopped: list[float] = []
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(kind):
        build_in_worker(doubled)
    thread.join()
    assert time.monotonic() - stopped[0] < 3
    assert _worker_pids() == []
    assert left_behind(doubled) == ["modules", "weights.safetensors"]


GPU = {"name": "NVIDIA H200", "sm": "9.0", "memory_bytes": 141 << 30, "multiprocessors": 132}
MACHINE: dict[str, Any] = {
    "os": "linux",
    "arch": "x86_64",
    "gpus": [GPU],
    "driver": {"version": "575.51", "cuda": "12.9"},
    "tensorrt": "10.16.2.10",
}


@pytest.mark.parametrize("doubled", ["10.16"], indirect=True)
def test_an_engine_of_tensorrt_is_built_with_its_record_and_tactics(doubled: BuildJob) -> None:
    events: list[Mapping[str, Any]] = []
    lines: list[str] = []
    options = BuildOptions(optimization_level=2, weights="refittable")
    built = tensorrt.build(
        doubled.network,
        doubled.weights,
        doubled.plan,
        options=options,
        facts=MACHINE,
        on_progress=events.append,
        on_log=lines.append,
    )
    assert doubled.plan.exists()
    assert events
    assert lines == list(built.log)
    assert built.record == tensorrt.record_of("10.16.2.10", options, MACHINE)
    assert tensorrt.check(built.record, MACHINE).fit == "exact"
    assert built.tactics
    assert built.entries
    again = tensorrt.build(
        doubled.network,
        doubled.weights,
        doubled.plan,
        options=replace(options, locked=True),
        facts=MACHINE,
        tactics=built.tactics,
    )
    assert again.entries == tuple(
        {name: value for name, value in entry.items() if name != "layer"} for entry in built.entries
    )  # a layer is named where its tactics are measured


@pytest.mark.parametrize("doubled", ["10.16"], indirect=True)
def test_an_edited_tactic_is_written_and_used(doubled: BuildJob) -> None:
    first = build_in_worker(doubled)
    assert first.tactics is not None
    assert first.entries is not None
    wanted = ({**first.entries[0], "tactic": "0x0000000000000007"}, *first.entries[1:])
    blob, entries = _tactics.edit(first.tactics, wanted)
    assert [e["tactic"] for e in entries] == [e["tactic"] for e in wanted]
    locked = replace(doubled, options=BuildOptions(locked=True), tactics=blob)
    again = build_in_worker(locked)
    assert again.entries == entries
    assert (first.refused_tactics, again.refused_tactics) == (None, None)
    with pytest.raises(EngineBuildError, match="'last' is no tactic of"):
        _tactics.edit(blob, [{**entries[0], "tactic": "last"}])
    with pytest.raises(EngineBuildError, match="has no key 0x1"):
        _tactics.edit(blob, [{**entries[0], "key": "0x1"}])


def test_a_timing_cache_that_is_not_taken_is_told(doubled: BuildJob) -> None:
    result = build_in_worker(replace(doubled, tactics=b"garbage"))
    assert result.refused_tactics is not None
    assert result.refused_tactics.startswith("is damaged, or of another TensorRT (")


def test_the_child_sees_the_chosen_gpu_only(
    doubled: BuildJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = doubled.plan.parent / "modules" / "tensorrt" / "__init__.py"
    seen = doubled.plan.parent / "seen"
    told = f"import os, pathlib\npathlib.Path({str(seen)!r}).write_text("
    told += "os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n"
    module.write_text(told + module.read_text())
    for visible, gpu, wanted in ((None, 0, "all"), (None, 1, "1"), ("4,GPU-8a", 1, "GPU-8a")):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        build_in_worker(replace(doubled, gpu=gpu))
        assert seen.read_text() == wanted


@pytest.mark.parametrize("doubled", ["10.16"], indirect=True)
def test_a_gpu_that_is_too_small_is_said_before_the_build(doubled: BuildJob) -> None:
    facts = MACHINE | {"gpus": [GPU | {"memory_bytes": 1 << 10}]}
    message = r"engine: this network needs about .* KiB, the GPU has 1\.0 KiB"
    with pytest.raises(DeviceError, match=message):
        tensorrt.build(
            doubled.network, doubled.weights, doubled.plan, options=BuildOptions(), facts=facts
        )


# the engine kind TensorRT-RTX on top


def test_the_record_says_what_the_plan_is_for(job: BuildJob) -> None:
    clauses: list[str] = []
    lines: list[str] = []
    record = tensorrt_rtx.build(
        job.network,
        job.plan.parent / "weights.safetensors",
        job.plan,
        compute_capabilities=("SM89", "SM120"),
        optimization_level=0,
        on_progress=clauses.append,
        on_log=lines.append,
    )
    assert job.plan.exists()
    assert record["compute_capabilities"] == ["SM89", "SM120"]
    assert record["options"]["optimization_level"] == 0
    assert set(record["memory"]) == {"weights_bytes", "context_bytes"}
    assert clauses
    assert all(" " in clause and "/" in clause for clause in clauses)
    assert not any(line.startswith("VERBOSE") for line in lines)
    facts = FACTS | {key: record[key] for key in ("tensorrt_rtx", "os", "arch")}
    assert tensorrt_rtx.check(record, facts).fit == "exact"


RECORD = {
    "tensorrt_rtx": "1.7.1.116",
    "compute_capabilities": ["SM89"],
    "os": "linux",
    "arch": "x86_64",
    "options": {},
}
ADA = {"name": "NVIDIA GeForce RTX 4090", "sm": "8.9"}
FACTS: dict[str, Any] = {
    "os": "linux",
    "arch": "x86_64",
    "tensorrt_rtx": "1.7.1.116",
    "gpus": [ADA],
    "problems": [],
}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (FACTS, Verdict("exact", "built by TensorRT-RTX 1.7.1.116 for SM89")),
        (FACTS | {"gpus": []}, Verdict("impossible", "there is no NVIDIA GPU")),
        (
            FACTS | {"gpus": [], "problems": ["the driver is too old"]},
            Verdict("impossible", "the driver is too old"),
        ),
        (
            FACTS | {"gpus": [{"name": "NVIDIA H200", "sm": "9.0"}]},
            Verdict("impossible", "TensorRT-RTX does not run on NVIDIA H200 (SM 9.0)"),
        ),
        (
            FACTS | {"tensorrt_rtx": None},
            Verdict("impossible", "TensorRT-RTX is not installed"),
        ),
        (
            FACTS | {"arch": "aarch64"},
            Verdict("rebuild", "built for x86_64, this machine is aarch64"),
        ),
        (
            FACTS | {"gpus": [ADA | {"sm": "12.0"}]},
            Verdict("rebuild", "built for SM89, NVIDIA GeForce RTX 4090 is SM120"),
        ),
        (
            FACTS | {"tensorrt_rtx": "1.8.0.1"},
            Verdict("rebuild", "built by TensorRT-RTX 1.7.1.116, this machine has 1.8.0.1"),
        ),
    ],
)
def test_a_record_is_compared_with_a_machine(facts: dict[str, Any], verdict: Verdict) -> None:
    assert tensorrt_rtx.check(RECORD, facts) == verdict


def test_capabilities_are_those_tensorrt_names() -> None:
    trt = pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed here")
    named = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(tensorrt_rtx.CAPABILITIES.values()) == named
