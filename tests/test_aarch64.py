# SPDX-License-Identifier: Apache-2.0
"""The emulated Arm machine: what it needs is said, and each step of making it is done once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.aarch64 import KEPT_IN_PYTORCH, root
from tests.aarch64.root import MachineError, Root, check_machine

SCRIPT = Path(__file__).parents[1] / "scripts/aarch64_smoke"


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_its_models_are_listed_and_others_refused() -> None:
    assert script("--list").stdout.split() == list(KEPT_IN_PYTORCH)
    done = script("resnet1")
    assert (done.returncode, "no model resnet1; see --list" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("user", "tools", "problem"),
    [
        (1000, ("debootstrap",), "making a root file system needs root"),
        (0, (), "debootstrap, unshare, chroot, mount missing: apt-get install debootstrap"),
        (0, root.TOOLS, "there is no emulator for Arm: apt-get install"),
    ],
)
def test_what_the_machine_lacks_is_said(
    user: int,
    tools: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(root.os, "geteuid", lambda: user)
    monkeypatch.setattr(root.shutil, "which", lambda tool: tool if tool in tools else None)
    monkeypatch.setattr(root.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(root, "BINFMT", tmp_path)
    monkeypatch.setattr(root, "EMULATOR", tmp_path / "none.conf")
    with pytest.raises(MachineError, match=problem):
        check_machine()


def test_the_kernel_is_given_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "register").touch()
    (tmp_path / "emulator.conf").write_text("# Arm\n:qemu-aarch64:M::\\x7f:\\xff:/qemu:POF\n")
    monkeypatch.setattr(root.os, "geteuid", lambda: 0)
    monkeypatch.setattr(root.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(root.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(root, "BINFMT", tmp_path)
    monkeypatch.setattr(root, "EMULATOR", tmp_path / "emulator.conf")
    check_machine()
    assert (tmp_path / "register").read_text() == ":qemu-aarch64:M::\\x7f:\\xff:/qemu:POF"


def test_a_step_that_was_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    fails = {"packages"}

    def run(self: Root, *command: str, **_: Any) -> str:
        ran.append(command[1])
        if command[1] == "install" and "packages" in fails:
            raise MachineError("no network")
        return ""

    monkeypatch.setattr(Root, "run", run)
    monkeypatch.setattr(Root, "_debian", lambda self: ran.append("debian"))
    monkeypatch.setattr(Root, "_connect", lambda self: ran.append("connect"))
    said: list[str] = []
    made = Root(tmp_path / "root", said.append)
    with pytest.raises(MachineError, match="no network"):
        made.prepare()
    assert ran == ["debian", "connect", "-m", "install"]
    fails.clear()
    made.prepare()
    assert ran[4:] == ["install"]
    made.prepare()
    assert len(ran) == 5
    assert said[-1] == "root: packages"


def test_a_command_inside_knows_how_to_reach_the_network_and_no_more() -> None:
    here = {"https_proxy": "p", "PIP_CERT": "c", "PIP_FIND_LINKS": "/host", "PYTHONPATH": "/host"}
    assert root._environment(here).keys() == {"https_proxy", "PIP_CERT", "PATH", "HOME", "LANG"}


@pytest.mark.rootfs
def test_an_emulated_machine_judges_as_this_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        check_machine()
    except MachineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("aarch64")
    try:
        done = script("gcn_scatter", "--folder", str(folder))
    finally:
        shutil.rmtree(folder)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ok    gcn_scatter"
    for variant in ("cpu", "orin"):
        assert f"gcn_scatter {variant}: " in done.stdout
