# SPDX-License-Identifier: Apache-2.0
"""``trtpack build --tune`` itself: it compiles and measures on this CPU, is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.packager.machines import facts, without_gpu
from trtpack import tuning
from trtpack.errors import ConfigError
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.weights import StoredTensor
from trtpack_runtime.loading import load
from trtpack_runtime.safetensors import write_safetensors
from trtpack_tools.update_weights import update_weights

LONGEST_S = 900
MODEL = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10)
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, 16, 16),)
"""


def trtpack(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "trtpack_runtime", "build", "m.py:make", "-t", "cpu"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["XDG_DATA_HOME"] = str(folder / "data")
    return subprocess.Popen(
        [*words, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines() if log.exists() else []


@pytest.mark.slow
def test_a_killed_tuning_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    flags = ("--tune", "--trials", "2", "--threads", "1", "-o", "b.tar", "--report", "r.json")
    log = tmp_path / "b.tune/trials.jsonl"
    first = trtpack(tmp_path, *flags)
    until = time.monotonic() + LONGEST_S
    try:
        while len(lines(log)) < 2:  # what it is of, and a trial
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
    first.communicate()
    before = lines(log)
    assert not (tmp_path / "b.tar").exists()

    second = trtpack(tmp_path, *flags)
    told, _ = second.communicate(timeout=LONGEST_S)
    assert second.returncode == 0, told
    assert lines(log)[: len(before)] == before
    assert "2 trials, as was asked" in told
    report = json.loads((tmp_path / "r.json").read_text())["tuning"]
    assert report["resumed"] == len(before) - 1
    tried = [trial for trial in report["trials"] if not trial["rebuild"]]
    assert [trial["number"] for trial in tried] == [0, 1]
    assert len({json.dumps(trial["settings"]) for trial in tried}) == 2
    assert len(lines(log)) == 1 + len(report["trials"])  # none was measured again
    assert {path.name for path in log.parent.iterdir()} == {"trials.jsonl"}  # nothing else is left
    loaded = load(tmp_path / "b.tar", trust=True)
    assert loaded.smoke().passed

    third = trtpack(tmp_path, *flags, "--seed", "1")
    told, _ = third.communicate(timeout=LONGEST_S)
    assert third.returncode == 2
    assert "tells of trials that differ in settings" in told
    assert lines(log)[: len(before)] == before


@pytest.mark.slow
def test_packed_weights_are_inside_and_new_ones_drop_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).eval()
    x = torch.randn(4, 64)
    output = tmp_path / "b.tar"
    options = Options(targets=("cpu",), output=output, freezing=True, max_autotune=True, threads=1)
    build((model, (x,)), options)
    loaded = load(output)
    (engine,) = loaded.bundle.manifest.variants["cpu"].engines.values()
    assert engine.record["weights"] == "inside"
    threads = torch.get_num_threads()
    assert torch.allclose(loaded(x), model(x), atol=1e-5)
    assert torch.get_num_threads() == threads

    new = {name: value * 2 for name, value in model.state_dict().items()}
    model.load_state_dict(new)
    write_safetensors(
        tmp_path / "new.safetensors", [StoredTensor(name, value) for name, value in new.items()]
    )
    updated = update_weights(
        loaded.bundle, tmp_path / "new.safetensors", tmp_path / "new.tar", trust=True
    )
    assert list(updated.dropped.values()) == ["it holds them inside"]
    assert torch.allclose(load(tmp_path / "new.tar")(x), model(x), atol=1e-5)


def test_what_cannot_be_measured_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(2, 2), (torch.zeros(1, 2),)
    for target, here, told in (
        ("orin", without_gpu(), "for orin on this machine: there is no NVIDIA GPU"),
        ("rtx-4090", without_gpu(tensorrt_rtx="1.2"), "there is no NVIDIA GPU"),
        ("rtx-4090", facts(tensorrt_rtx="1.2"), r"NVIDIA H200 is SM 9\.0, not 8\.9"),
    ):
        monkeypatch.setattr(tuning, "facts", lambda here=here: here)
        options = Options(targets=(target,), output=tmp_path / "b.tar", tune=True)
        with pytest.raises(ConfigError, match=told):
            build(model, options)
    options = Options(targets=("cpu",), output=tmp_path / "b.tar", tune=True, engine="reference")
    with pytest.raises(ConfigError, match="nothing to tune"):
        build(model, options)
    assert list(tmp_path.iterdir()) == []
