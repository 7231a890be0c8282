# SPDX-License-Identifier: Apache-2.0
"""The workflows are valid, and their scripts do what they say, with the real ``trtpack matrix``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from trtpack.cli.matrix import matrix

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CI = ROOT / "scripts/ci"
GITHUB = CI / "trtpack-cells.github.yml"
NO_CURL = """\
#!/bin/sh
echo "$@" >> "$CALLS"
case $* in *http_code*) printf 404 ;; esac
"""
MATRIX = """\
[models.net]
model = "net.py:make"
[targets.cpu]
runner = ["ubuntu-24.04"]
[targets.rtx-4090]
"""


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / name, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_actionlint_has_nothing_to_say() -> None:
    done = tool("actionlint", "-no-color", *WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, "")


def test_actionlint_would_say_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(GITHUB.read_text().replace("needs.plan.outputs.has-build", "needs.plam.x", 1))
    done = tool("actionlint", "-no-color", broken)
    assert done.returncode == 1
    assert "plam" in done.stdout


def test_the_workflow_that_is_used_is_the_one_to_copy() -> None:
    assert (ROOT / ".github/workflows/trtpack-cells.yml").read_text() == GITHUB.read_text()


@pytest.fixture(scope="module")
def child() -> str:
    """The child pipeline of the example."""
    return CliRunner().invoke(matrix, [str(CI / "example.toml"), "--format", "gitlab"]).stdout


@pytest.mark.slow
def test_gitlabs_schema_takes_the_templates(child: str, tmp_path: Path) -> None:
    cells = tmp_path / "cells.yml"
    cells.write_text(child)
    schema = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    done = tool("check-jsonschema", *schema, cells, *sorted(CI.glob("*.gitlab-ci.yml")))
    assert done.returncode == 0, done.stdout
    cells.write_text(child.replace("tags: [", "tags: [7, ", 1))
    assert tool("check-jsonschema", *schema, cells).returncode == 1


def test_every_job_of_the_child_pipeline_has_its_template(child: str) -> None:
    templates = yaml.safe_load((CI / "trtpack-cells.gitlab-ci.yml").read_text())
    pipeline = yaml.safe_load(child)
    (include,) = pipeline.pop("include")
    assert (ROOT / include["local"]).is_file()
    jobs = {name: job for name, job in pipeline.items() if name != "stages"}
    assert {job["extends"] for job in jobs.values()} <= templates.keys()
    assert {templates[job["extends"]]["stage"] for job in jobs.values()} == set(pipeline["stages"])


@pytest.fixture
def project(tmp_path: Path) -> dict[str, str]:
    """A repository with a matrix, and what its jobs see."""
    (tmp_path / "matrix.toml").write_text(MATRIX)
    (tmp_path / "net.py").write_text("def make(): ...\n")
    (tmp_path / "bin").mkdir()
    curl = tmp_path / "bin/curl"
    curl.write_text(NO_CURL)
    curl.chmod(0o755)
    return {
        "PATH": f"{tmp_path / 'bin'}:{TOOLS}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "MATRIX": "matrix.toml",
        "ALL": "false",
        "TRTPACK_MATRIX": "matrix.toml",
        "TRTPACK_INSTALL_BUILD": "true",
        "TRTPACK_ALL": "false",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_PROJECT_ID": "7",
        "CI_JOB_TOKEN": "secret",
        "CI_COMMIT_TAG": "v1",
    }


def sh(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As both run it: bash that stops at the first failure."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=environment["HOME"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def step(job: str, name: str) -> str:
    steps = yaml.safe_load(GITHUB.read_text())["jobs"][job]["steps"]
    return next(str(step["run"]) for step in steps if step.get("name") == name)


def left(folder: Path, cell: str, **run: Any) -> None:
    (folder / "results" / cell).mkdir(parents=True, exist_ok=True)
    (folder / "results" / cell / "build.json").write_text("{}")
    if run:
        (folder / "results" / cell / "run.json").write_text(json.dumps(run))


def test_github_plans_and_judges(project: dict[str, str], tmp_path: Path) -> None:
    planned = sh(step("plan", "Plan"), project)
    assert planned.returncode == 0, planned.stderr
    output = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert [cell["cell"] for cell in json.loads(output["test"])["include"]] == ["net-cpu"]
    left(tmp_path, "net-rtx-4090")
    left(tmp_path, "net-cpu", passed=False)
    judged = sh(step("verdict", "Judge"), project)
    assert judged.returncode == 7
    assert "net-cpu failed: its smoke test failed" in (tmp_path / "summary").read_text()
    plan = json.loads((tmp_path / "release/plan.json").read_text())
    assert [cell["result"] for cell in plan["cells"]] == ["failed", "passed"]
    assert (tmp_path / "release/net-cpu.run.json").is_file()


@pytest.mark.slow
def test_github_builds_nothing_that_has_not_changed(
    project: dict[str, str], tmp_path: Path
) -> None:
    left(tmp_path, "net-rtx-4090")
    left(tmp_path, "net-cpu", passed=True)
    assert sh(step("verdict", "Judge"), project).returncode == 0
    (tmp_path / "release").rename(tmp_path / "previous")
    assert sh(step("plan", "Plan"), project).returncode == 0
    assert "has-build=false" in (tmp_path / "output").read_text()


@pytest.mark.slow
def test_gitlab_plans_judges_and_keeps_a_release(project: dict[str, str], tmp_path: Path) -> None:
    plan = yaml.safe_load((CI / "trtpack.gitlab-ci.yml").read_text())["trtpack plan"]["script"]
    planned = sh("\n".join(plan), project)
    assert planned.returncode == 0, planned.stderr
    assert "no release has a plan yet" in planned.stdout
    assert "build net-rtx-4090" in (tmp_path / "cells.yml").read_text()
    left(tmp_path, "net-rtx-4090")
    left(tmp_path, "net-cpu", passed=True)
    jobs = yaml.safe_load((CI / "trtpack-cells.gitlab-ci.yml").read_text())
    judged = sh("\n".join(jobs[".trtpack-verdict"]["script"]), project)
    assert judged.returncode == 0, judged.stderr
    assert "--upload-file release.tar" in (tmp_path / "calls").read_text()
    assert (tmp_path / "release.tar").is_file()
    left(tmp_path, "net-cpu", passed=False)
    assert sh("\n".join(jobs[".trtpack-verdict"]["script"]), project).returncode == 7
    (tmp_path / "bin/curl").write_text(NO_CURL.replace("404", "503"))
    stopped = sh("\n".join(plan), project)
    assert (stopped.returncode, stopped.stderr) == (1, "the package registry answered 503\n")


GH = """\
#!/bin/sh
case $* in
    "release list"*) [ -n "$RELEASES" ] || exit 1; echo "$RELEASES" ;;
    "release view"*) printf 'plan.json\\nnet-cpu.run.json\\n' ;;
    "release download"*) cp plan.json previous/ ;;
esac
"""


@pytest.mark.parametrize(
    ("releases", "code", "fetched"), [("0", 0, False), ("1", 0, True), ("", 1, False)]
)
def test_github_fetches_the_last_release_or_stops(
    project: dict[str, str], tmp_path: Path, releases: str, code: int, fetched: bool
) -> None:
    gh = tmp_path / "bin/gh"
    gh.write_text(GH)
    gh.chmod(0o755)
    (tmp_path / "plan.json").write_text("{}")
    script = step("plan", "Fetch the plan and the reports of the last release")
    assert sh(script, {**project, "RELEASES": releases}).returncode == code
    assert (tmp_path / "previous/plan.json").is_file() is fetched


@pytest.mark.slow
@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_a_cell_is_built_tested_and_judged(
    project: dict[str, str], tmp_path: Path, system: str
) -> None:
    """The commands of the jobs themselves, on this machine's CPU."""
    (tmp_path / "net.py").write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Linear(3, 5), torch.randn(2, 3)\n"
    )
    quick = '[build]\nengine = "reference"\n[run]\nrepeats = 3\nwarmup = 1\n'
    (tmp_path / "matrix.toml").write_text(quick + MATRIX.partition("[targets.rtx")[0])
    made = sh("trtpack matrix matrix.toml --format github", project).stdout.splitlines()
    (cell,) = json.loads(made[0].partition("=")[2])["include"]
    told = {"CELL": cell["cell"], "SOURCE": cell["source"], "TARGET": cell["target"]}
    for verb in ("build", "test"):
        arguments = cell[f"{'build' if verb == 'build' else 'run'}-arguments"]
        environment = {**project, **told, "ARGUMENTS": arguments}
        if system == "github":
            script = step(verb, verb.capitalize())
        else:
            jobs = yaml.safe_load((CI / "trtpack-cells.gitlab-ci.yml").read_text())
            words = (word for word in jobs[f".trtpack-{verb}"]["script"] if "venv" not in word)
            script = "\n".join(words)
            environment["TRTPACK_INSTALL_RUN"] = "true"
        done = sh(script, environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/net-cpu/junit.xml").is_file()
    assert sh(step("verdict", "Judge"), project).returncode == 0
