# SPDX-License-Identifier: Apache-2.0
"""What breaks on a device while a bundle is loaded or runs: the right error, or a degraded module;
nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.runtime import deferred, starts
from tests.runtime.starts import Engines, X
from trtpack_runtime import load, scratch
from trtpack_runtime.device_faults import LASTING, device_fault, lost
from trtpack_runtime.engines import reference, tensorrt
from trtpack_runtime.engines._cuda import device_error
from trtpack_runtime.errors import BundleError, DeviceError, DeviceLostError
from trtpack_runtime.loading import DegradedWarning

MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
FAULT = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    return starts.on_h200(monkeypatch, tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return starts.write(tmp_path / "bundle.tar")


# --- words ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(MEMORY), "the GPU is out of memory: 2.00 GiB more were wanted"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 4096 bytes."
            ),
            "the machine is out of memory: 4096 bytes more were wanted",
        ),
        (MemoryError(), "the machine is out of memory"),
        (RuntimeError("CUDA error: unspecified launch failure"), "a kernel failed on the GPU"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_what_an_exception_of_pytorch_says(error: Exception, told: str | None) -> None:
    fault = device_fault(error)
    assert (fault is None) == (told is None)
    assert fault is None or fault.message.startswith(told or "")
    assert fault is None or fault.exit_code == 6


@pytest.mark.parametrize("number", LASTING)
def test_a_fault_that_lasts_is_known_by_number_and_by_text(number: int) -> None:
    for words in (f"CUDA error {number} launching", f"Cuda Runtime ({LASTING[number]})"):
        fault = lost(words)
        assert fault is not None
        assert "start the process again" in fault.hint
        assert isinstance(device_error([words, "then nothing more"]), DeviceLostError)
    assert lost("CUDA error 7001") is None


def test_no_room_even_for_pytorch(
    bundle: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(blob: object, context: object) -> NoReturn:
        raise RuntimeError(MEMORY)

    monkeypatch.setattr(tensorrt, "load", full)
    monkeypatch.setattr(reference, "load", full)
    with pytest.raises(DeviceError, match=r"out of memory: 2\.00 GiB more") as caught:
        load(bundle)
    assert caught.value.exit_code == 6


# --- while it runs -------------------------------------------------------------------------------
def test_too_little_memory_for_one_call_spoils_no_other(bundle: Path, engines: Engines) -> None:
    module = load(bundle)
    engines.runs["forward_1"] = RuntimeError(MEMORY)
    with pytest.raises(DeviceError, match=r"out of memory: 2\.00 GiB more"):
        module(X)
    del engines.runs["forward_1"]
    torch.testing.assert_close(module(X), starts.wanted())
    assert not module.degraded


def test_what_a_failed_call_held_is_given_back(bundle: Path, engines: Engines) -> None:
    module = load(bundle)
    engines.runs["forward_1"] = RuntimeError(MEMORY)
    with pytest.raises(DeviceError) as caught:
        module(X)
    frames, trace = [], caught.value.__cause__.__traceback__ if caught.value.__cause__ else None
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    held = [v for f in frames[1:] for v in f.f_locals.values() if isinstance(v, torch.Tensor)]
    assert frames
    assert not held


def test_a_faulting_kernel_asks_for_another_process(bundle: Path, engines: Engines) -> None:
    module = load(bundle)
    engines.runs["forward_0"] = RuntimeError(FAULT)
    with pytest.raises(DeviceLostError, match="CUDA error 700") as caught:
        module(X)
    assert "start the process again" in caught.value.hint


def test_an_engine_that_changes_after_its_digest_was_compared(
    bundle: Path, engines: Engines
) -> None:
    def corrupt() -> None:
        data = bundle.read_bytes()
        with bundle.open("r+b") as file:
            file.seek(data.rindex(starts.PLAN))
            file.write(b"?")

    engines.during = corrupt
    with pytest.warns(DegradedWarning, match="forward_1 runs in PyTorch"):
        module = load(bundle)
    assert list(module.failed_engines) == ["forward_1"]
    torch.testing.assert_close(module(X), starts.wanted())


# --- disks ---------------------------------------------------------------------------------------
def test_no_folder_for_scratch_is_needed_for_what_is_built(
    bundle: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    module = load(bundle)
    assert not module.degraded
    with pytest.warns(DegradedWarning, match="cannot write"):
        module = load(deferred.write(bundle.with_name("deferred.tar"), variants=("h200",)))
    assert "cannot write" in module.failed_engines["forward_0"]
    torch.testing.assert_close(module(X), starts.wanted())


def test_scratch_of_the_dead_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, held, new = (tmp_path / f"trtpack-load-{name}" for name in ("dead", "held", "new"))
    for folder in (dead, held, new):
        folder.mkdir()
        (folder / ".lock").touch()
    for folder in (dead, held):
        os.utime(folder, (0, 0))
    with (held / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch.scratch_folder() as mine:
            assert mine.is_dir()
            assert sorted(tmp_path.iterdir()) == sorted([held, new, mine])
    assert sorted(tmp_path.iterdir()) == sorted([held, new])


# --- an end in the middle ------------------------------------------------------------------------
SCRIPT = """
import sys
from tests.runtime import deferred
from trtpack_runtime import placement
from trtpack_runtime.cli import main
here = deferred.h200()
placement.facts = lambda: dict(here)
placement.GPU = "cpu"
sys.executable = sys.argv.pop(1)  # what the builder's child is started with
main(["run", *sys.argv[1:]])
"""


@pytest.mark.slow  # each imports PyTorch in a process of its own
@pytest.mark.parametrize("start", ["full", "fast"])
def test_sigterm_while_engines_are_built(tmp_path: Path, start: str) -> None:
    path = deferred.write(tmp_path / "bundle.tar", variants=("h200",))
    child, pid = tmp_path / "child", tmp_path / "pid"
    child.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nexec sleep 60\n")
    child.chmod(0o755)
    temporary, cache = tmp_path / "tmp", tmp_path / "cache"
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache)}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(child), str(path), "--start", start],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    until = time.monotonic() + 60
    while not pid.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert pid.exists(), run.communicate()[1]
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 143, said
    assert not Path(f"/proc/{int(pid.read_text())}").exists()
    assert list(temporary.iterdir()) == []
    left = [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"]
    assert left == []


def test_what_is_damaged_for_good_is_refused(bundle: Path, engines: Engines) -> None:
    data = bundle.read_bytes()
    at = data.index(deferred.weights()["w0"].numpy().tobytes())
    bundle.write_bytes(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(BundleError, match=r"weights/0\.safetensors is corrupt"):
        load(bundle)
