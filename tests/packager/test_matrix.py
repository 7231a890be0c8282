# SPDX-License-Identifier: Apache-2.0
"""``trtpack matrix``: which cells there are, can be and have changed, and what became of them."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from trtpack.cli.build import build
from trtpack.cli.matrix import CommandFlags, matrix
from trtpack.errors import ConfigError
from trtpack.matrix import content_keys, plan_cells, read_matrix, to_github
from trtpack.target import catalogue
from trtpack_runtime.errors import SmokeFailure

EXAMPLE = Path(__file__).parents[2] / "scripts/ci/example.toml"
DLA_ABSENT = ("it has no DLA", "dla_cores")
NO_SM87 = ("TensorRT 10.13.3 does not serve SM 8.7", "not_sms")
NO_FP8 = ("has no FP8", "has_fp8")
TOO_OLD = ("jetpack-6.2 has TensorRT 10.3.0.30, older than 10.8", "tensorrt")
IMPOSSIBLE = {
    **{
        f"{model}-orin-jp70": NO_SM87
        for model in ("resnet50", "mobilenet", "vit-fp8", "detector", "attention", "on-dla")
    },
    **{f"vit-fp8-{name}": NO_FP8 for name in ("cpu", "orin", "orin-new", "nano-4gb")},
    **{f"on-dla-{name}": DLA_ABSENT for name in ("cpu", "nano-4gb", "thor", "l4", "rtx-4090")},
    "on-dla-orin-new": ("TensorRT of jetpack-7.2 cannot use its DLA", "dla"),
    "attention-orin": TOO_OLD,
    "attention-nano-4gb": TOO_OLD,
    "attention-cpu": ("inductor has no TensorRT", "kind"),
    "detector-nano-4gb": ("Jetson Orin Nano 4GB has 4 GiB of memory", "memory_gib"),
}
SMALL = """\
[build]
samples = 2

[models.net]
model = "net.py:make"
build = { weights = "net.pt", input = ["1x3"], metric = "judge.py:best", max-drop = "1%" }
files = ["config/**/*.yaml"]

[targets.cpu]
runner = ["ubuntu-24.04"]

[targets.rtx-4090]

[[expect-failure]]
cell = "net-cpu"
reason = "it is slow"
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(matrix, [*map(str, arguments)])


def cells(*arguments: str | Path) -> dict[str, dict[str, Any]]:
    result = call(*arguments, "--format", "json")
    assert result.exception is None, result.output
    return {cell["cell"]: cell for cell in json.loads(result.stdout)["cells"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.toml").write_text(SMALL)
    (tmp_path / "net.py").write_text("import parts.head\nfrom neck import Neck\n")
    (tmp_path / "judge.py").write_text("")
    (tmp_path / "neck.py").write_text("import torch\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("")
    (tmp_path / "parts/head.py").write_text("")
    (tmp_path / "config/a").mkdir(parents=True)
    (tmp_path / "config/a/b.yaml").write_text("x: 1")
    (tmp_path / "net.pt").write_bytes(b"weights")
    (tmp_path / "other.py").write_text("")
    return tmp_path


def test_the_example_loses_exactly_what_cannot_be() -> None:
    found = cells(EXAMPLE)
    impossible = {
        name: cell["reason"] for name, cell in found.items() if cell["state"] == "impossible"
    }
    assert set(impossible) == set(IMPOSSIBLE)
    for name, reason in impossible.items():
        assert IMPOSSIBLE[name][0] in reason, name
        assert "(source: " in reason
        assert "none is given" not in reason
    assert [name for name, cell in found.items() if cell["state"] == "excluded"] == ["detector-cpu"]
    assert len(found) == 6 * 8 + 1
    assert len(found) - len(impossible) - 1 == 49 - len(IMPOSSIBLE) - 1


@pytest.mark.parametrize("cell", IMPOSSIBLE)
def test_each_reason_is_a_fact_under_targets(cell: str) -> None:
    known = catalogue()
    flags = CommandFlags()
    column = next(
        c
        for c in sorted(read_matrix(EXAMPLE, flags).columns, key=lambda c: -len(c.name))
        if cell.endswith(f"-{c.name}")
    )
    device, _, stack = column.asked.partition("@")
    owner = known.devices[known.spellings[device]]
    software = known.stacks[stack or owner.stacks[0]]
    fact = IMPOSSIBLE[cell][1]
    assert fact in owner.sources or fact in software.sources


def test_every_cell_is_a_command_that_build_takes() -> None:
    for cell in cells(EXAMPLE).values():
        if cell["state"] == "run":
            words = [cell["source"], "--target", cell["asked"], *cell.get("build_arguments", ())]
            with build.make_context("build", words) as context:
                assert context.params["liven"] is True
    profiles = cells(EXAMPLE)["resnet50-orin-two-profiles"]["build_arguments"]
    assert profiles[-1] == "--profile=x=1x3x224x224"


@pytest.mark.parametrize("form", ["text", "json", "github", "gitlab"])
def test_the_same_file_gives_the_same_bytes(form: str) -> None:
    assert call(EXAMPLE, "--format", form).stdout == call(EXAMPLE, "--format", form).stdout


def test_github_gets_two_matrices(folder: Path) -> None:
    result = call("matrix.toml", "--format", "github")
    lines = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert (lines["has-build"], lines["has-test"]) == ("true", "true")
    built, tested = (json.loads(lines[name])["include"] for name in ("build", "test"))
    assert [cell["cell"] for cell in built] == ["net-cpu", "net-rtx-4090"]
    assert [cell["cell"] for cell in tested] == ["net-cpu"]
    assert tested[0]["runner"] == ["ubuntu-24.04"]
    assert [cell["expected"] for cell in built] == ["failure", "success"]
    words = shlex.split(built[0]["build-arguments"])
    assert words == [
        "--samples=2",
        "--weights=net.pt",
        "--input=1x3",
        "--metric=judge.py:best",
        "--max-drop=1%",
    ]


def test_gitlab_gets_a_pipeline(folder: Path) -> None:
    pipeline = yaml.safe_load(call("matrix.toml", "--format", "gitlab").stdout)
    assert pipeline["stages"] == ["build", "test", "verdict"]
    assert pipeline["test net-cpu"]["needs"] == ["build net-cpu"]
    assert pipeline["build net-cpu"]["allow_failure"] is True
    assert pipeline["build net-rtx-4090"]["variables"]["TARGET"] == "rtx-4090"
    assert "test net-rtx-4090" not in pipeline


def test_what_is_left_out_is_told_beside_the_output() -> None:
    told = call(EXAMPLE, "--format", "github").stderr
    assert "on-dla-thor is impossible: it has no DLA" in told
    assert "detector-cpu is excluded: a minute each call" in told


@pytest.mark.parametrize(
    ("file", "content", "changed"),
    [
        ("net.py", "# other", {"net-cpu", "net-rtx-4090"}),
        ("neck.py", "import numpy", {"net-cpu", "net-rtx-4090"}),
        ("parts/head.py", "x = 1", {"net-cpu", "net-rtx-4090"}),
        ("judge.py", "x = 1", {"net-cpu", "net-rtx-4090"}),
        ("net.pt", "other weights", {"net-cpu", "net-rtx-4090"}),
        ("config/a/b.yaml", "x: 2", {"net-cpu", "net-rtx-4090"}),
        ("matrix.toml", SMALL.replace("samples = 2", "samples = 3"), {"net-cpu", "net-rtx-4090"}),
        (
            "matrix.toml",
            SMALL.replace(
                "[targets.rtx-4090]", '[targets.rtx-4090]\nbuild = { engine = "inductor" }'
            ),
            {"net-rtx-4090"},
        ),
        ("matrix.toml", SMALL.replace("ubuntu-24.04", "ubuntu-26.04"), set()),
        ("other.py", "x = 1", set()),
        ("README.md", "read me", set()),
    ],
)
def test_only_cells_whose_inputs_changed_run_again(
    folder: Path, file: str, content: str, changed: set[str]
) -> None:
    previous = folder / "previous.json"
    previous.write_text(call("matrix.toml", "--format", "json").stdout)
    (folder / file).write_text(content)
    after = cells("matrix.toml", "--since", previous)
    assert {name for name, cell in after.items() if cell["state"] == "run"} == changed


def test_another_release_or_another_fact_is_another_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cells("matrix.toml")["net-cpu"]["key"]
    with monkeypatch.context() as patched:
        patched.setattr(content_keys, "__version__", "9.9")
        assert cells("matrix.toml")["net-cpu"]["key"] != before
    with monkeypatch.context() as patched:
        patched.setattr("platform.machine", lambda: "aarch64")
        assert cells("matrix.toml")["net-cpu"]["key"] != before
    assert cells("matrix.toml")["net-cpu"]["key"] == before


def report(folder: Path, cell: str, **run: Any) -> None:
    (folder / "results" / cell).mkdir(parents=True, exist_ok=True)
    (folder / "results" / cell / "build.json").write_text("{}")
    if run:
        (folder / "results" / cell / "run.json").write_text(json.dumps(run))


WORSE = {"changes": [{"verdict": "worse", "text": "median latency grew"}, {"verdict": "same"}]}


@pytest.mark.parametrize(
    ("run", "result", "told"),
    [
        ({"passed": True}, "passed", ""),
        ({"passed": False}, "failed", "its smoke test failed"),
        ({"passed": True, "degraded": True}, "failed", "PyTorch runs what an engine was to run"),
        ({"passed": False, "against": WORSE}, "failed", "worse than the last release: median"),
        ({}, "failed", "its test left no report"),
    ],
)
def test_a_cell_is_judged_by_its_report(
    folder: Path, run: dict[str, Any], result: str, told: str
) -> None:
    (folder / "matrix.toml").write_text(SMALL.partition("[[expect")[0])
    report(folder, "net-rtx-4090")
    report(folder, "net-cpu", **run)
    judged = call("matrix.toml", "--results", "results", "--format", "json")
    found = {cell["cell"]: cell["result"] for cell in json.loads(judged.stdout)["cells"]}
    assert found == {"net-cpu": result, "net-rtx-4090": "passed"}
    assert isinstance(judged.exception, SmokeFailure) is (result == "failed")
    assert told in judged.stderr


def test_a_cell_that_was_not_built_failed(folder: Path) -> None:
    (folder / "results").mkdir()
    judged = call("matrix.toml", "--results", "results")
    assert isinstance(judged.exception, SmokeFailure)
    assert "net-rtx-4090 failed: was not built" in judged.stderr
    assert "net-cpu failed" not in judged.stderr  # which is expected to


@pytest.mark.parametrize("strict", [False, True])
def test_a_cell_that_starts_to_pass_is_told(folder: Path, strict: bool) -> None:
    (folder / "matrix.toml").write_text(SMALL + f"strict = {str(strict).lower()}\n")
    report(folder, "net-rtx-4090")
    report(folder, "net-cpu", passed=True)
    judged = call("matrix.toml", "--results", "results")
    assert "net-cpu: passes, though expected to fail: it is slow" in judged.stderr
    assert isinstance(judged.exception, SmokeFailure) is strict


def test_what_failed_runs_again_though_nothing_changed(folder: Path) -> None:
    report(folder, "net-cpu", passed=False)
    judged = call("matrix.toml", "--results", "results", "--format", "json")
    (folder / "previous.json").write_text(judged.stdout)
    after = cells("matrix.toml", "--since", "previous.json")
    assert after["net-cpu"]["state"] == "unchanged"  # it failed as expected
    assert after["net-rtx-4090"]["state"] == "run"  # was not built
    assert after["net-cpu"]["result"] == "expected failure"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "samples = 2",
            "sample = 2",
            "2:1: build.sample: trtpack build has no such option, did you",
        ),
        ("samples = 2", "samples = 0", "2:11: build.samples: 0 is not in the range 1<=x<=64"),
        ("samples = 2", 'liven = "yes"', "2:9: build.liven: wanted true or false, got 'yes'"),
        ("samples = 2", "samples = [2]", "2:11: build.samples: wanted text or a number, got [2]"),
        ("samples = 2", 'output = "x"', "2:1: build.output: trtpack build has no such option"),
        ('model = "net.py:make"', "", "4:9: models.net.model: missing, wanted text"),
        ('model = "net.py:make"', "model = 7", "5:9: models.net.model: wanted text, got 7"),
        (
            'files = ["config',
            'needs = ["fp6", "config',
            "7:10: models.net.needs: wanted one of fp8",
        ),
        (
            "[targets.rtx-4090]",
            "[targets.rtx-4091]",
            "12:10: targets.rtx-4091.target: unknown target",
        ),
        ("[targets.rtx-4090]", "[targets.auto]", "12:10: targets.auto.target: a matrix names its"),
        ('runner = ["ub', 'runners = ["ub', "10:1: targets.cpu.runners: unknown key, did you mean"),
        ('cell = "net-cpu"', 'cell = "net-cpx"', "14:3: is about no cell"),
        ('cell = "net-cpu"', "", "14:3: expect-failure: says of no cell, model or target"),
        ('reason = "it is slow"', "", "14:3: expect-failure.reason: missing, wanted text"),
        ("[build]", "[bild]", "1:2: bild: unknown key, did you mean build?"),
        ("samples = 2", "samples 2", "2:9: Expected '=' after a key"),
        ("net.py:make", "none.py:make", "cell net-cpu: there is no file none.py"),
        ("1x3", "1xa", "cell net-cpu: bad --input"),
        ('"net.pt"', '"none.pt"', "cell net-cpu: there is no weights file none.pt"),
        ("config/**", "confih/**", "cell net-cpu: files: nothing is called confih"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder: Path, old: str, new: str, problem: str) -> None:
    assert old in SMALL
    (folder / "matrix.toml").write_text(SMALL.replace(old, new, 1))
    result = call("matrix.toml")
    assert isinstance(result.exception, ConfigError)
    assert result.exception.message.startswith(
        f"matrix.toml:{' ' if problem[0] == 'c' else ''}{problem}"
    )
    assert "\n" not in result.exception.message


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot read p.json: it is not JSON"), ("{}", "p.json is no plan of trtpack matrix")],
)
def test_a_previous_plan_that_is_none(folder: Path, text: str, message: str) -> None:
    (folder / "p.json").write_text(text)
    result = call("matrix.toml", "--since", "p.json")
    assert message in str(result.exception)


def test_a_further_cell_needs_a_name_of_its_own(folder: Path) -> None:
    row = '[[include]]\nname = "net-cpu"\nmodel = "net"\ntarget = "cpuu"\n'
    (folder / "matrix.toml").write_text(SMALL + row)
    result = call("matrix.toml")
    assert isinstance(result.exception, ConfigError)
    told = getattr(result.exception, "problems", ())
    assert [problem.split(": ", 1)[1] for problem in told] == [
        "include.target: there is no target 'cpuu', did you mean cpu?",
        "include.name: there is a cell net-cpu already",
    ]


def test_github_takes_only_so_many(folder: Path) -> None:
    flags = CommandFlags()
    plan = plan_cells(read_matrix(Path("matrix.toml"), flags), flags)
    many = dataclasses.replace(plan, cells=plan.cells * 128)
    assert to_github(many).startswith("build=")
    with pytest.raises(ConfigError, match="258 cells to run, GitHub takes 256"):
        to_github(dataclasses.replace(plan, cells=plan.cells * 129))
