# SPDX-License-Identifier: Apache-2.0
"""An emulated Arm machine: a root file system of Debian with Python and an old PyTorch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
DEBIAN = ("python3", "python3-venv", "ca-certificates")
PYTHON = ("torch==2.3.1", "numpy<2", "click")
TOOLS = ("debootstrap", "unshare", "chroot", "mount")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
EMULATOR = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
INSTALL = "apt-get install debootstrap qemu-user-static binfmt-support"
ENTER = 'mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && exec chroot "$@"'


class MachineError(Exception):
    """This machine cannot emulate; the message says what is missing."""


def check_machine() -> None:
    """Sees to it that this machine runs programs for Arm.

    Raises:
        MachineError: it does not, and why.
    """
    if os.geteuid() != 0:
        raise MachineError("making a root file system needs root: run this as root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise MachineError(f"{', '.join(missing)} missing: {INSTALL}")
    if platform.machine() == "aarch64" or (BINFMT / "qemu-aarch64").exists():
        return
    if not EMULATOR.exists():
        raise MachineError(f"there is no emulator for Arm: {INSTALL}")
    try:
        if not (BINFMT / "register").exists():
            mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
            subprocess.run(mount, check=True, capture_output=True)
        lines = EMULATOR.read_text().splitlines()
        (BINFMT / "register").write_text(next(line for line in lines if line.startswith(":")))
    except (OSError, subprocess.CalledProcessError) as error:
        raise MachineError(f"the kernel does not take the emulator: {error}") from error


class Root:
    """The root file system below a folder; each step of making it is done once."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder.absolute(), say
        self._steps = self.folder.with_name(f"{self.folder.name}.steps")

    def prepare(self) -> None:
        """Makes what is not there yet.

        Raises:
            MachineError: a step failed, with its last lines.
        """
        self._step("debian", self._debian)
        self._step("network", self._connect)
        self._step("environment", lambda: self.run("python3", "-m", "venv", "/venv"))
        install = ("/venv/bin/pip", "install", "--no-cache-dir", "--no-compile")
        self._step("packages", lambda: self.run(*install, *PYTHON))

    def install(self, wheel: Path) -> None:
        """Installs a wheel in the place of an older build of the same."""
        place = self.give(wheel)
        self.run("/venv/bin/pip", "install", "--no-deps", "--no-index", "--force-reinstall", place)

    def give(self, file: Path) -> str:
        """Copies a file into the root's ``/given``; answers its path there."""
        given = self.folder / "given"
        given.mkdir(exist_ok=True)
        shutil.copyfile(file, given / file.name)
        return f"/given/{file.name}"

    def run(self, *command: str, codes: tuple[int, ...] = (0,)) -> str:
        """Runs a command inside, with its own ``/proc``; answers its standard output.

        Raises:
            MachineError: it ended with a code that is not one of ``codes``.
        """
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.folder), *command],
            env=_environment(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in codes:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-6:]
            text = f"{' '.join(command)} ended with {done.returncode}: {' | '.join(said)}"
            raise MachineError(text)
        return done.stdout

    def _step(self, name: str, make: Callable[[], object]) -> None:
        mark = self._steps / name
        if mark.exists():
            return
        self._say(f"root: {name}")
        make()
        self._steps.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def _debian(self) -> None:
        """What debootstrap makes; only the packages' own scripts are emulated."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        packages = f"--include={','.join(DEBIAN)}"
        command = ["debootstrap", "--arch=arm64", "--variant=minbase", packages]
        done = subprocess.run(
            [*command, SUITE, str(self.folder), MIRROR], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise MachineError(f"debootstrap failed: {done.stdout.strip().splitlines()[-1:]}")

    def _connect(self) -> None:
        """Gives it this machine's names and authorities, now that its own are in their place."""
        for name in ("resolv.conf", "hosts", "ssl/certs/ca-certificates.crt"):
            place = self.folder / "etc" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/etc") / name, place)


def _environment(here: Mapping[str, str]) -> dict[str, str]:
    """What a command inside is told of this machine: how to reach the network, no more."""
    kept = {
        name: value
        for name, value in here.items()
        if name.lower().endswith("_proxy")
        or (name.startswith("PIP_") and name != "PIP_FIND_LINKS")
        or name == "SSL_CERT_FILE"
    }
    inside = "/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return kept | {"PATH": inside, "HOME": "/root", "LANG": "C.UTF-8"}
