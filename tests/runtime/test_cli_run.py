# SPDX-License-Identifier: Apache-2.0
"""``trtpack run`` and ``trtpack resolve`` as a user meets them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from click.testing import CliRunner

from tests.runtime import handmade
from trtpack_runtime import samples
from trtpack_runtime.cli import main
from trtpack_runtime.cli.run import run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write(tmp_path_factory.mktemp("run") / "bundle.tar")


@pytest.fixture
def trtpack(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


def test_a_run_proves_and_measures(bundle: Path, trtpack: Any) -> None:
    code, out, err = trtpack("run", bundle)
    assert (code, err) == (0, "")
    assert "orin  impossible  needs an NVIDIA GPU of SM 8.7, this machine has none" in out
    assert "smoke test: passed" in out
    assert "latency of forward(x 2x4, scale 1) on cpu" in out
    assert re.search(r"calls/s, .* items/s  \(\d+ calls after \d+ to warm up\)", out)
    assert "most memory: main memory " in out
    assert out.endswith("\n✓ outputs are right\n")


def test_a_wrong_output_exits_with_7_and_is_reported(tmp_path: Path, trtpack: Any) -> None:
    path = handmade.write(tmp_path / "b.tar", golden_error=0.5)
    report = tmp_path / "report.xml"
    code, out, err = trtpack("run", path, "--repeats", 3, "--junit", report)
    assert code == 7
    assert "smoke test: FAILED, 1 of 3 outputs wrong" in out
    assert "\n     relative L2 error " in out
    assert err.startswith("error: 1 of 3 outputs wrong, worst is 'logits' of forward-0: relative")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("5", "1")
    assert trtpack("run", path, "--no-smoke", "--no-bench")[0] == 0


def test_json_is_one_document(bundle: Path, trtpack: Any) -> None:
    code, out, err = trtpack("run", bundle, "--json", "--repeats", 4, "--target", "orin")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["variant"], found["degraded"]) == ("orin", True)
    forward = found["methods"]["forward"]
    assert forward["smoke"]["passed"] is True
    assert forward["latency"]["wall"]["calls"] == 4
    assert forward["latency"]["items_per_call"] == 2
    assert found["start"]["seconds"]["total"] <= found["load_seconds"]
    assert forward["segments"] == [
        {"name": "forward_0", "engine": "reference"},
        {"name": "forward_1", "engine": "reference"},
    ]


def test_help_has_sections(trtpack: Any) -> None:
    CliRunner().invoke(run, ["--help"])
    code, out, _ = trtpack("run", "--help")
    titles = re.findall(r"^(\w+):$", out, re.MULTILINE)
    assert (code, titles) == (0, ["Options", "Measuring", "Judging", "Report"])
    report = out.split("\nReport:\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in report.splitlines()] == ["--json", "--junit", "-v,", "-q,"]
    assert "-h, --help" in out.split("Measuring:")[0]


def test_quiet_says_nothing(bundle: Path, trtpack: Any) -> None:
    assert trtpack("run", bundle, "-q", "--no-bench") == (0, "", "")


def test_inputs_from_files_give_outputs_and_labels(
    bundle: Path, tmp_path: Path, trtpack: Any
) -> None:
    x, scale = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([2.0])
    samples.write_outputs(tmp_path / "in.npz", {"x": x, "scale": scale})
    code, out, _ = trtpack(
        "run", bundle, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.safetensors"
    )
    assert code == 0
    assert "best classes" in out
    assert "latency of forward(x 1x4, scale 1)" in out
    found = samples.read_tensors(tmp_path / "out.safetensors")
    with torch.no_grad():
        want = handmade.Classifier()(x, scale=scale)
    torch.testing.assert_close(found["logits"], want["logits"])
    assert torch.equal(found["best.0"], want["best"][0])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--input", "x=nowhere.npz"], 2, "there is no input file nowhere.npz"),
        (["--input", "x=x.safetensors"], 2, "input 'scale' is not given"),
        (
            ["--input", "x=x.safetensors", "--input", "scale=x.safetensors"],
            2,
            "input scale: wanted 1 dim",
        ),
        (["--input", "x.safetensors", "--input", "x=x.safetensors"], 2, "'x' is given twice"),
        (["--output", "out.txt"], 2, "cannot write outputs to out.txt"),
        (["--output", "nowhere/out.npz"], 2, "there is no folder"),
        (["--target", "cpuu"], 2, "no variant 'cpuu'"),
        (["--target", "orin", "--strict"], 5, "no variant fits this machine: orin: needs"),
        (["--method", "encode"], 2, "no method 'encode'"),
        (["--import", "nowhere"], 2, "cannot import nowhere"),
        (["--device", "gpu"], 2, "unknown device 'gpu'"),
        (["--device", "cuda:99"], 6, "PyTorch cannot use cuda:99 on this machine: "),
        (["--repeats", "0"], 2, "invalid value for '--repeats'"),
    ],
)
def test_mistakes_are_one_line_with_a_hint(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trtpack: Any,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    samples.write_outputs(tmp_path / "x.safetensors", {"x": torch.ones(2, 4)})
    before = set(tmp_path.iterdir())
    got, _, err = trtpack("run", bundle, *arguments)
    lines = err.splitlines()
    assert (got, len(lines)) == (code, 2)
    assert said in lines[0]
    assert lines[1].startswith("hint: ")
    assert set(tmp_path.iterdir()) == before


def test_without_torch_it_says_what_to_install(bundle: Path) -> None:
    guard = (
        "import sys; sys.modules['torch'] = None\n"
        "from trtpack_runtime.cli import main\n"
        "from trtpack_runtime.session import start\n"
        "here = start.facts()\n"
        "start.facts = lambda: {**here, 'torch': None}\n"
        f"main(['run', {str(bundle)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", guard], capture_output=True, text=True, check=False
    )
    error, hint = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (5, "")
    assert error.startswith("error: no variant fits this machine: ")
    assert "cpu: PyTorch is not installed" in error
    assert hint.startswith("hint: install PyTorch on this machine, or build for this machine")


def test_resolve_answers_without_torch(bundle: Path, tmp_path: Path, trtpack: Any) -> None:
    code, out, _ = trtpack("resolve", bundle)
    assert code == 0
    assert "cpu   works       PyTorch" in out
    guard = (
        "import sys; sys.modules['torch'] = None\n"
        "from trtpack_runtime.cli import main\n"
        f"main(['resolve', {str(bundle)!r}, '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", guard], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["chosen"] == "cpu"


def test_resolve_decides_for_another_machine(bundle: Path, tmp_path: Path, trtpack: Any) -> None:
    facts = {"torch": None, "os": "linux", "arch": "aarch64", "cpu": {"flags": []}, "gpus": []}
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts))
    code, out, err = trtpack("resolve", bundle, "--facts", path)
    assert code == 5
    assert "cpu   impossible  PyTorch is not installed" in out
    assert err.startswith("error: no variant fits this machine")
    path.write_text("{}")
    assert trtpack("resolve", bundle, "--facts", path)[2].startswith(
        f"error: {path} holds no facts"
    )
    path.write_text("{")
    assert trtpack("resolve", bundle, "--facts", path)[0] == 2
