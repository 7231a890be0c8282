# SPDX-License-Identifier: Apache-2.0
"""Engines of TensorRT are built in a child process, where a double stands in its place."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.build_jobs import chain, left_behind, worker_pids
from trtpack_runtime.engines import _tactics, tensorrt
from trtpack_runtime.engines._build import BuildOptions
from trtpack_runtime.engines._child import BuildJob, build_in_worker
from trtpack_runtime.engines._processes import give_up_early, start_early
from trtpack_runtime.errors import BuildCancelled, DeviceError, EngineBuildError


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return chain(tmp_path)


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
                if (here / "tensorrt/crash").exists():
                    import os
                    os.write(2, b"it broke")
                    os._exit(3)
                if (here / "tensorrt/fault").exists():
                    import os, signal
                    arguments[0]._log("ERROR", "Assertion rank > 0 failed")
                    os.kill(os.getpid(), signal.SIGSEGV)
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
        (signal.SIGTERM, worker_pids, BuildCancelled),
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
    assert worker_pids() == []
    assert left_behind(doubled) == ["modules", "weights.safetensors"]


def test_a_crash_tells_the_last_errors_and_where_it_was(doubled: BuildJob) -> None:
    (doubled.plan.parent / "modules/tensorrt/fault").touch()
    with pytest.raises(EngineBuildError, match="ended by SIGSEGV: Assertion rank > 0 ") as death:
        build_in_worker(doubled)
    assert "_build.py" in str(death.value)
    assert "threading.py" not in str(death.value)


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


def the_worker() -> int:
    """The only child that works, once the system lists it."""
    deadline = time.monotonic() + 10
    while not (found := worker_pids()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (pid,) = found
    return pid


@pytest.fixture
def early(doubled: BuildJob) -> Iterator[BuildJob]:
    """A job whose child was started before there was one."""
    start_early("tensorrt")
    yield doubled
    give_up_early()


def test_a_child_that_was_started_early_does_the_build(early: BuildJob) -> None:
    waiting = the_worker()
    start_early("tensorrt")  # again does nothing
    folder = early.plan.parent / "modules"
    (folder / "wait").touch()
    seen: list[int] = []

    def look() -> None:
        while not (folder / "building").exists():
            time.sleep(0.02)
        seen.append(the_worker())
        (folder / "wait").unlink()

    thread = threading.Thread(target=look)
    thread.start()
    result = build_in_worker(early)
    thread.join()
    assert result.version == "8.6.2"
    assert seen == [waiting]
    assert worker_pids() == []
    assert left_behind(early) == ["engine.plan", "modules", "weights.safetensors"]
    again = build_in_worker(early)
    assert again.plan_bytes == result.plan_bytes


def test_one_that_died_meanwhile_is_replaced(early: BuildJob) -> None:
    os.kill(the_worker(), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while worker_pids():  # it takes a moment to die
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert build_in_worker(early).version == "8.6.2"
    assert worker_pids() == []


def test_another_environment_needs_another_child(
    early: BuildJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].replace("/modules", "/nowhere"))
    with pytest.raises(DeviceError, match="No module named 'tensorrt'"):
        build_in_worker(early)
    assert worker_pids() == []


def test_what_it_dies_of_at_work_is_told(early: BuildJob) -> None:
    folder = early.plan.parent / "modules"
    (folder / "tensorrt/crash").touch()
    with pytest.raises(EngineBuildError, match=r"forward_0 ended with status 3: it broke"):
        build_in_worker(early)


def test_one_that_gets_no_work_ends(early: BuildJob) -> None:
    the_worker()
    give_up_early()
    assert worker_pids() == []


def test_without_tensorrt_the_job_says_so(
    job: BuildJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start_early("tensorrt")
    with pytest.raises(DeviceError, match="No module named 'tensorrt'"):
        build_in_worker(replace(job, module="tensorrt"))
