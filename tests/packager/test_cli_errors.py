# SPDX-License-Identifier: Apache-2.0
"""Bad input to ``trtpack build``: one line, a hint, the exit code, no traceback, no file left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.packager.machines import without_gpu
from trtpack_runtime.cli import main

MODEL = """
import time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))

    def forward(self, x):
        return self.layers(x)

class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x

class Sorting(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()

def net():
    return Net(), torch.ones(1, 3, 8, 8)

def branching():
    return Branching(), torch.ones(2, 2)

def sorting():
    return Sorting(), torch.ones(2, 8)

def raising():
    raise RuntimeError("no such\\ncheckpoint")

def slow():
    print("building", flush=True)
    time.sleep(60)
"""


STOPPED = "hint: run it again; no unfinished file was left"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "m.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, error and hint of a command that has to say exactly those two lines."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    output = capsys.readouterr()
    assert output.out == ""
    lines = [
        line
        for line in output.err.splitlines()
        if not re.match(r"[\w :.-]+( \.\.\.|: (failed after )?[\d.]+ s)$", line)
    ]
    assert "Traceback" not in output.err
    error, hint = lines[0], lines[-1]
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert len(lines) == 2 or lines[2].strip() == "^", output.err
    assert isinstance(caught.value.code, int)
    return caught.value.code, error.removeprefix("error: "), hint.removeprefix("hint: ")


def left_behind(folder: Path) -> list[str]:
    known = {"m.py", "cache", "__pycache__"}
    return sorted(p.name for p in folder.iterdir() if p.name not in known)


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        ("none.py:net -t cpu", 2, "there is no file none.py", "did you mean m.py:net?"),
        ("m.py:nett -t cpu", 2, "m.py has no factory 'nett'", "did you mean net?"),
        (
            "m.py:raising -t cpu",
            2,
            r"factory raising in m.py raised RuntimeError: no such checkpoint at .*m.py:\d+: raise",
            "correct the line",
        ),
        ("m.py:net -t ornin", 2, "unknown target 'ornin'", "did you mean orin"),
        ("m.py:net -t xavier", 2, "cannot build for .*Xavier", "choose another target"),
        (
            "m.py:net -t cpu -t cpu@inductor",
            2,
            "cpu and cpu@inductor are one target",
            "keep -t cpu",
        ),
        ("m.py:net", 2, "no target is given", "-t cpu"),
        ("-t cpu", 2, "neither a MODEL nor --matrix is given", "trtpack build --help"),
        ("m.py:net -t cpu --dtyp float16", 2, "no such option", "trtpack build --help"),
        ("m.py:net -t cpu --dtype int8", 2, "invalid value for '--dtype'", "--help"),
        ("m.py:net -t cpu --samples 0", 2, "invalid value for '--samples'", "--help"),
        ("m.py:net -t cpu --workspace much", 2, "bad size 'much'", "4G"),
        ("m.py:net -t cpu -i 1x3xa", 2, "bad --input, expected a size, got 'a'", "write it as"),
        ("m.py:net -t cpu -i y=1x3x8x8", 2, "there is no input 'y'", "use a parameter's name"),
        ("m.py:net -t cpu -i 1x3x8x8 -i 1", 2, "2 inputs without a name", "remove an --input"),
        ("m.py:net -t orin --profile x=1x3xa", 2, "bad --profile, expected a size", "write it as"),
        ("m.py:net -t orin --profile 1x3", 2, "'1x3' names no input", "write it as"),
        ("m.py:net -t orin --profile x=1x3x8x8", 2, "no dynamic size", "--input x=1/8/32x3"),
        ("m.py:net -t cpu --sparse", 2, "--sparse is for TensorRT", "leave --sparse away"),
        ("m.py:net -t h200 --dla-core 0", 2, "it has no DLA, which .*orin", "leave --dla-core 0"),
        (
            "m.py:net -t orin@jetpack-6.0 --engine-weights stripped",
            2,
            r"stripped is not possible for orin@jetpack-6\.0: TensorRT 10\.2 has it",
            "choose refittable",
        ),
        ("m.py:net -t orin --locked", 2, "no tactics to lock orin to", "--tactics"),
        ("m.py:net -t orin --tactics m.py", 2, "there is no m.py.lock.json", "lock.json beside it"),
        ("m.py:net -t cpu --weights w.pt", 2, "there is no weights file w.pt", "--weights"),
        ("m.py:net -t cpu --meta m.py", 2, "m.py is not JSON", "correct the file"),
        ("m.py:net -t cpu -o none/b.tar", 2, "there is no folder .*none", "--output"),
        ("m.py:net -t cpu -o cache", 2, "cache is a folder", "--output"),
        ("m.py:net -t cpu -o /dev/null", 2, "/dev/null is a device", "--output"),
        ("m.py:net -t cpu --report /dev/full", 2, "/dev/full is a device", "--report"),
        (
            "m.py:net -t cpu --torch-op aten.relux",
            2,
            "no operator aten.relux to keep",
            "--torch-op aten.relu?",
        ),
        (
            "m.py:net -t orin --require-full --torch-module head",
            2,
            "--require-full wants every operator on engines, but head is to stay",
            "leave one of them away",
        ),
        ("m.py:net -t cpu --report none/r.json", 2, "there is no folder .*none", "--report"),
        ("m.py:net -t cpu --log-file none/l", 2, "cannot write the log file", "a folder"),
        (
            "m.py:branching -t cpu",
            3,
            r"cannot export the model at .*m.py:16: if x.sum\(\) > 0:",
            "torch.cond",
        ),
        (
            "m.py:sorting -t rtx-4090 --strict",
            4,
            "cannot convert aten._fft_r2c",
            "without --strict",
        ),
    ],
)
def test_bad_input(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    error: str,
    hint: str,
) -> None:
    (folder / "cache").mkdir(exist_ok=True)
    got = fails(capsys, "build", *arguments.split())
    assert got[0] == code
    assert re.search(error, got[1]), got[1]
    assert hint in got[2]
    assert left_behind(folder) == []


def test_a_machine_without_a_gpu_is_no_target(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtpack_runtime.device.facts", without_gpu)
    code, error, hint = fails(capsys, "build", "m.py:net", "-t", "native")
    assert (code, error) == (6, "this machine cannot be a target: there is no NVIDIA GPU")
    assert "--target cpu" in hint
    assert left_behind(folder) == []


@pytest.mark.parametrize("spec", ["x=1x5x8x8", "x=1x3x8x8:int64"])
def test_inputs_the_model_cannot_run_on(
    folder: Path, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    code, error, _ = fails(capsys, "build", "m.py:net", "-t", "cpu", "-i", spec)
    assert code in (2, 3)
    assert "m.py:12: return self.layers(x)" in error
    assert left_behind(folder) == []


def test_an_existing_bundle_survives_a_failed_build(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = folder / "bundle.tar"
    bundle.write_bytes(b"the old one")
    fails(capsys, "build", "m.py:branching", "-t", "cpu")
    assert bundle.read_bytes() == b"the old one"
    assert left_behind(folder) == ["bundle.tar"]


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", "build", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "aborted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_the_model_loads(
    folder: Path, number: signal.Signals, code: int, said: str
) -> None:
    child = started(folder, "m.py:slow", "-t", "cpu")
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert err.splitlines()[-2:] == [f"error: {said}", STOPPED]
    assert "Traceback" not in err
    assert out == ""
    assert left_behind(folder) == []


@pytest.mark.slow
def test_ctrl_c_while_an_engine_is_built(folder: Path) -> None:
    """The compiler's processes end too, and nothing is left beside the output."""
    child = started(folder, "m.py:net", "-t", "cpu")
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".trtpack-*/weights.safetensors")):
            assert time.monotonic() < deadline, "no engine was begun"
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        time.sleep(2)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert err.splitlines()[-2:] == ["error: aborted", STOPPED]
    assert "Traceback" not in err
    assert left_behind(folder) == []
    assert not working_in(folder)


def working_in(folder: Path) -> list[str]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    return mount


@pytest.fixture
def full_disk(small_disk: Path) -> Path:
    (small_disk / "ballast").write_bytes(bytes((1 << 20) - (16 << 10)))
    return small_disk


@pytest.mark.parametrize(
    "target", ["cpu --engine reference", pytest.param("cpu", marks=pytest.mark.slow), "rtx-4090"]
)
def test_a_full_disk_leaves_nothing(
    folder: Path, full_disk: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """Whoever was writing, the message names the output and not a file the user never saw."""
    try:
        output = full_disk / "b.tar"
        code, error, hint = fails(
            capsys, "build", "m.py:net", "-o", str(output), "-t", *target.split()
        )
        assert code == 2
        assert error == f"cannot write {output}: no space left on device"
        assert f"the disk of {full_disk}" in hint
        assert [p.name for p in full_disk.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", str(full_disk)], check=True)
