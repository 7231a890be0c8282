# SPDX-License-Identifier: Apache-2.0
"""The scripts say what is wrong with the machine or the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("scripts/setup", "scripts/dev", "scripts/test", "scripts/demo", ".ci/run")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_wants_a_new_enough_python(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "env", "sha256sum", "cut", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the version check of an old Python does
    old.chmod(0o755)
    done = run("scripts/setup", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert not done.stdout


def test_the_front_door_lists_its_commands() -> None:
    done = run("scripts/dev")
    assert done.returncode == 0
    lanes = ("test", "slow", "sweep", "rootfs", "python310", "all")
    for command in ("format", "lint", "types", "imports", *lanes):
        assert f"scripts/dev {command}" in done.stdout


def test_the_front_door_refuses_what_it_does_not_know() -> None:
    done = run("scripts/dev", "frobnicate", VIRTUAL_ENV=str(Path(sys.executable).parents[1]))
    assert done.returncode == 2
    assert "unknown command: frobnicate" in done.stderr


def test_the_front_door_asks_for_setup_first(tmp_path: Path) -> None:
    done = run("scripts/dev", "lint", VIRTUAL_ENV=str(tmp_path))
    assert done.returncode == 2
    assert "run scripts/setup first" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_run_and_stops_at_the_first_error(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    assert run("bash", "-n", script).returncode == 0


def test_every_pinned_package_has_one_exact_version() -> None:
    lines = (ROOT / "scripts/constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    names = [name.lower() for name, _ in pins]
    assert len(names) == len(set(names))
    assert {"torch", "torchvision", "tensorrt_rtx", "timm", "transformers", "pytest"} <= set(names)
