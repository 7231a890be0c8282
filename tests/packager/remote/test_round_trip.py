# SPDX-License-Identifier: Apache-2.0
"""``build --on`` and ``run --on`` from the command line, on a device that has PyTorch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from tests.runtime import deferred
from trtpack.cli.build import build
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli.run import run
from trtpack_runtime.errors import ConfigError, EngineBuildError, SmokeFailure
from trtpack_runtime.safetensors import open_safetensors

from . import devices
from .sshd import Server

pytestmark = pytest.mark.slow

MODEL = """
import torch


def make():
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
    return torch.nn.Sequential(*layers), (torch.randn(2, 8),)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with caches of its own."""
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def whole(device: Server) -> Server:
    """A device with PyTorch."""
    devices.add_everything(device)
    return device


def on(server: Server) -> list[str]:
    return ["--on", server.on, "--ssh-option", *server.options]


def built(server: Server, *words: str) -> Result:
    arguments = ["model.py:make", "--report", "report.json", *on(server), *words]
    return CliRunner().invoke(build, arguments, catch_exceptions=False)


def ran(server: Server, *words: str) -> Result:
    return invoked(["bundle.tar", *on(server), *words])


def invoked(words: list[str]) -> Result:
    return CliRunner().invoke(run, words, catch_exceptions=False)


@pytest.mark.parametrize("engine", ["reference", "inductor"])
def test_build_here_and_prove_there(whole: Server, desk: Path, engine: str) -> None:
    made = built(whole, "-t", "cpu", "--engine", engine)
    assert made.exit_code == 0, made.output
    assert "smoke test, cpu  passed: on cpu, " in made.output
    report = json.loads((desk / "report.json").read_text())["on"]
    assert report["address"] == "device"
    assert report["facts"]["schema"] == "trtpack.facts/1"
    assert report["smoke"]["cpu"]["report"]["passed"]
    open_bundle(desk / "bundle.tar").verify()
    assert whole.settled() == ["home", "tmp"]


def test_engines_of_the_device_are_in_the_bundle(device: Server, desk: Path) -> None:
    """The whole build, with TensorRT's double there and no PyTorch."""
    devices.add_gpu(device, "NVIDIA H200", "9.0", 141, 132)
    devices.add_tensorrt(device, "10.16", "10.16.1.11")
    words = ("-t", "h200", "--min-block-size", "1")
    made = built(device, *words)
    assert made.exit_code == 0, made.output
    assert "h200  forward_0  tensorrt  " in made.output
    assert "deferred" not in made.output
    assert "smoke test, h200  not run: its Python" in made.output
    bundle = open_bundle(desk / "bundle.tar")
    (ref,) = bundle.manifest.variants["h200"].engines.values()
    assert ref.record is not None
    assert ref.record["device"] == "NVIDIA H200"
    assert "caches/h200/timing.cache" in bundle.entries
    again = built(device, *words)
    assert "from the cache, built" in again.output
    plan = "engines/h200/forward_0.plan"
    assert open_bundle(desk / "bundle.tar").entries[plan].sha256 == bundle.entries[plan].sha256


def test_what_the_devices_tensorrt_refuses_stays_in_pytorch(device: Server, desk: Path) -> None:
    devices.add_gpu(device, "NVIDIA H200", "9.0", 141, 132)
    devices.add_tensorrt(device, "10.16", "10.16.1.11")
    devices.refuse_layers(device, "SOFTMAX")
    (desk / "model.py").write_text(MODEL.replace("torch.nn.ReLU()", "torch.nn.Softmax(-1)"))
    words = ("-t", "h200", "--min-block-size", "1")
    made = built(device, *words)
    assert made.exit_code == 0, made.output
    refusal = "TensorRT 10.16.1.11 of device refused it: TensorRT built no engine"
    assert refusal in " ".join(made.output.split())
    engines = open_bundle(desk / "bundle.tar").manifest.variants["h200"].engines
    assert {name: ref.member for name, ref in engines.items()} == {
        "forward_0": "engines/h200/forward_0.plan",
        "forward_2": "engines/h200/forward_2.plan",
    }
    with pytest.raises(EngineBuildError, match=r"device: .* no implementation was found"):
        built(device, *words, "--strict")


def test_a_bundle_that_fails_there_is_kept_apart(whole: Server, desk: Path) -> None:
    (desk / "bundle.tar").write_text("older")
    with pytest.raises(SmokeFailure, match=r"cpu on device: .* exceeds the latency limit"):
        built(whole, "-t", "cpu", "--engine", "reference", "--max-latency-ms", "0.000001")
    assert (desk / "bundle.tar").read_text() == "older"
    assert (desk / "bundle.failed.tar").exists()


def test_exit_codes_and_files_of_a_run(whole: Server, desk: Path) -> None:
    deferred.write(desk / "bundle.tar")
    said = ran(whole, "--no-bench", "--output", "o.safetensors", "--junit", "j.xml")
    assert said.exit_code == 0
    assert "smoke test: passed" in said.output
    (value,) = open_safetensors(desk / "o.safetensors").values()
    assert value.shape == (2, 4)
    assert ElementTree.parse(desk / "j.xml").getroot().get("failures") == "0"
    found = ran(whole, "--json", "--no-bench")
    report = json.loads(found.stdout)
    assert (found.exit_code, found.stderr) == (0, "")
    assert report["bundle"]["path"] == "bundle.tar"
    (desk / "before.json").write_text(found.stdout)
    again = ran(whole, "--no-bench", "--against", "before.json", "-q")
    assert (again.exit_code, again.output) == (0, "")
    slow = ran(whole, "-q", "--max-latency-ms", "0.000001", "--repeats", "2")
    assert slow.exit_code == 7
    assert "exceeds the latency limit of the command line" in slow.stderr
    wrong = ran(whole, "--target", "nope")
    assert wrong.exit_code == 2
    assert "no variant 'nope'" in wrong.stderr
    with pytest.raises(ConfigError, match=r"there is no file none\.npz"):
        ran(whole, "--input", "x=none.npz")
    with pytest.raises(ConfigError, match=r"cannot write nowhere/o\.npz"):
        ran(whole, "--output", "nowhere/o.npz")


def test_an_address_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="nothing here runs bundles on tcp://orin"):
        invoked(["b.tar", "--on", "tcp://orin"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_host_that_is_killed_leaves_nothing(
    whole: Server, desk: Path, number: signal.Signals
) -> None:
    deferred.write(desk / "bundle.tar")
    words = ["run", "bundle.tar", "--budget", "60", "--repeats", "100000000", *on(whole)]
    process = subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert b"layers" in process.stdout.readline()
    assert whole.lease.exists()
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    assert whole.settled() == ["home", "tmp"]
