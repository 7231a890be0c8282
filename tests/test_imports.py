# SPDX-License-Identifier: Apache-2.0
"""What starting costs: importing any package, or asking for help, loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "numpy",
    "click",
    "rich",
    "tensorrt",
    "tensorrt_rtx",
    "torchvision",
    "transformers",
}
HELP = """
import runpy, sys
sys.argv = ["trtpack", "--help"]
try:
    runpy.run_module("trtpack_runtime", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def modules_after(code: str) -> set[str]:
    """Top-level modules a bare interpreter has loaded after ``code``."""
    report = (
        "\nimport sys, json; print('\\n' + json.dumps([m.partition('.')[0] for m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", ["trtpack", "trtpack_runtime", "trtpack_tools"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    loaded = modules_after(f"import {package}; {package}.__version__")
    assert package in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "trtpack_runtime.archive",
        "trtpack_runtime.bundle",
        "trtpack_runtime.cli.doctor",
        "trtpack_runtime.cli.run",
        "trtpack_runtime.cli.verify",
        "trtpack_runtime.device",
        "trtpack_runtime.engines._load",
        "trtpack_runtime.cli.farm",
        "trtpack_runtime.farm.engines",
        "trtpack_runtime.farm.serving",
        "trtpack_runtime.ledger",
        "trtpack_runtime.manifest",
        "trtpack_runtime.network",
        "trtpack_runtime.program",
        "trtpack_runtime.resolve",
        "trtpack_runtime.session",
        "trtpack_runtime.session.start",
        "trtpack_runtime.worker",
        "trtpack_tools.cli.inspect",
    ],
)
def test_what_a_device_without_torch_runs_imports_none(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert not loaded & (HEAVY - {"click"})


def test_what_starts_tensorrt_early_does_not_wait_for_pytorch() -> None:
    assert "torch" not in modules_after("import trtpack.early, trtpack.cli.build")


def test_help_loads_click_and_nothing_heavier() -> None:
    loaded = modules_after(HELP)
    assert "click" in loaded
    assert not loaded & (HEAVY - {"click"})


def test_modules_import_only_what_they_may() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
