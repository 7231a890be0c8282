# SPDX-License-Identifier: Apache-2.0
"""A real OpenSSH server on loopback: the device of the tests, with a system of its own.

It has its own keys, configuration and port, runs as the current user, and has its own folders for
temporary files, leases and homes, so that what is left behind can be listed. Its ``python3`` is a
bare Python of this release: the standard library and what a test adds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from venv import EnvBuilder

import pytest

SERVER = next((p for p in ("/usr/sbin/sshd", shutil.which("sshd")) if p and Path(p).exists()), None)
SECONDS = 20.0
_TRIES = 5

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
LogLevel ERROR
Subsystem sftp internal-sftp
SetEnv {environment}
"""
_CLIENT = """
Host device
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/client_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


@dataclass(frozen=True)
class Server:
    """The device: below ``root`` are its home and its folder for temporary files."""

    folder: Path
    port: int
    root: Path

    @property
    def on(self) -> str:
        """What ``--on`` is told."""
        return "ssh://device"

    @property
    def options(self) -> tuple[str, ...]:
        """What ``--ssh-option`` is told."""
        return (f"-F {self.folder}/client_config",)

    @property
    def lease(self) -> Path:
        """The lease file."""
        return self.root / "tmp" / "trtpack-device.lease"

    @property
    def packages(self) -> Path:
        """A folder on the path of its Python."""
        return self.folder / "packages"

    def python(self, text: str) -> None:
        """Puts a shell script in the place of its ``python3``."""
        file = self.folder / "bin" / "python3"
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def left(self) -> list[str]:
        """Everything in its home and its folder for temporary files."""
        found = [
            os.path.relpath(Path(place, name), self.root)
            for place, folders, files in os.walk(self.root)  # which bears that some go meanwhile
            for name in (*folders, *files)
        ]
        return sorted(found)

    def settled(self) -> list[str]:
        """The same once nothing goes any more, or after a while."""
        end = time.monotonic() + SECONDS
        while self.left() != ["home", "tmp"] and time.monotonic() < end:
            time.sleep(0.05)
        return self.left()


def bare_python(folder: Path) -> Path:
    """A Python of this release that has nothing but its standard library."""
    EnvBuilder(symlinks=True).create(folder)
    return folder / "bin" / "python3"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server until the block ends."""
    if SERVER is None:
        if "CI" in os.environ and os.geteuid() == 0:  # .ci/run installs it
            pytest.fail("openssh-server is not installed, though this is CI")
        pytest.skip("openssh-server is not installed here")
    for name in ("bin", "packages", "device/tmp", "device/home"):
        (folder / name).mkdir(parents=True)
    for key in ("host_key", "client_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # it changes to that folder before it serves root
    bare = bare_python(folder / "bare")
    for _ in range(_TRIES):
        server = Server(folder, _free_port(), folder / "device")
        server.python(f'exec {bare} "$@"')
        process = _started(server)
        if _serves(server.port, process):
            break
    else:
        pytest.fail(f"sshd does not serve: {(folder / 'sshd.log').read_text()}")
    try:
        yield server
    finally:
        process.terminate()
        process.wait()


def _started(server: Server) -> subprocess.Popen[bytes]:
    """The server's process, its configuration and the client's written."""
    folder = server.folder
    told = {
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "HOME": str(server.root / "home"),  # whose shell reads no file that changes the path
        "TMPDIR": str(server.root / "tmp"),
        "TRTPACK_LEASE_FOLDER": str(server.root / "tmp"),
        "PYTHONPATH": str(server.packages),
        "PYTHONNOUSERSITE": "1",
    }
    variables = " ".join(f'"{name}={value}"' for name, value in told.items())
    values = {"folder": folder, "port": server.port, "environment": variables}
    (folder / "sshd_config").write_text(_CONFIG.format(**values))
    (folder / "client_config").write_text(_CLIENT.format(**values))
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {host_key}")
    assert SERVER is not None
    with (folder / "sshd.log").open("wb") as log:
        return subprocess.Popen(
            [SERVER, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _serves(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether it serves; not where another took the port meanwhile."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    process.kill()
    process.wait()
    return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
