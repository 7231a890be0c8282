# SPDX-License-Identifier: Apache-2.0
"""The system's OpenSSH, with the user's own configuration, keys and jump hosts.

It never asks for anything (``BatchMode``): a build that waits for a password waits for ever. One
login serves every connection to a device (``ControlMaster``), by the user's own control socket
where the configuration names one, so a login with a second factor counts, else by one of our own.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trtpack_runtime.errors import ConfigError, DeviceError, TrtpackError

from .address import Address

_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "RequestTTY=no",
    "RemoteCommand=none",
)
_PERSIST_S = 60
"""How long a login of ours outlives a host that was killed."""


_FAILED, _NOT_FOUND = 255, (126, 127)


class UnreachableError(DeviceError):
    """Nothing answers, now; it may in a while."""


@dataclass(frozen=True)
class Ended:
    """How an ``ssh`` ended: its status, what it wrote, and what the other end wrote before."""

    status: int | None
    said: str
    shell_said: str = ""


class Ssh:
    """``ssh`` for one device; a ``with`` block ends the login.

    Args:
        address: the device.
        options: further words for ``ssh``, each as a shell would split it: ``-F config``.

    Raises:
        ConfigError: there is no ``ssh``, or it does not take the options.
    """

    def __init__(self, address: Address, options: Sequence[str] = ()) -> None:
        if shutil.which("ssh") is None:
            raise ConfigError("there is no ssh on this host", hint="install OpenSSH's client")
        self._address = address
        try:
            self._words = [word for option in options for word in shlex.split(option)]
        except ValueError as error:
            raise ConfigError(
                f"--ssh-option {' '.join(options)}: {error}", hint="quote it as for a shell"
            ) from error
        self._folder = Path(tempfile.mkdtemp(prefix="trtpack-ssh-", dir="/tmp"))
        self._own_login = False

    def __enter__(self) -> Ssh:
        try:
            self._own_login = not self._has_control_path()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._own_login:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    self._command("-O", "exit"), capture_output=True, timeout=10, check=False
                )
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Starts a command there; the process, and the file with what ``ssh`` says."""
        said = self._folder / "said"
        with said.open("wb") as file:  # no pipe: the login that stays would keep it open
            process = subprocess.Popen(
                self._command("--", command, alone=False),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        return process, said

    def why(self, ended: Ended) -> TrtpackError:
        """What to tell of an ``ssh`` that ended before anything was said by the other end."""
        at, lines = self._address, _lines(ended.said)
        last = lines[-1] if lines else ""
        named = next((line for line in reversed(lines) if _known(line) is not None), last)
        known = _known(named)
        if ended.status == _FAILED and known is not None:
            kind, told, hint = known
            return kind(f"{told.format(at=at, host=at.host)}: {named}", hint=hint.format(at=at))
        if ended.status in _NOT_FOUND:
            return DeviceError(
                f"there is no such Python on {at}: {last}",
                hint="install Python 3.10 or newer there, or name one with --remote-python",
            )
        heard = _lines(ended.shell_said)
        what = last or (heard[-1] if heard else f"ssh ended with status {ended.status}")
        return DeviceError(
            f"cannot start anything on {at}: {what}", hint=f"try it by hand: ssh {at} python3 -V"
        )

    def _command(self, *words: str, alone: bool = True) -> list[str]:
        """``ssh`` with options, then words; a ``--`` among them stands for the device."""
        at = self._address
        command = ["ssh", *self._words, *(f"-o{option}" for option in _OPTIONS)]
        if self._own_login:
            command += [f"-oControlPath={self._folder}/%C"]
            command += ["-oControlMaster=auto", f"-oControlPersist={_PERSIST_S}"]
        command += ["-l", at.user] if at.user else []
        command += ["-p", str(at.port)] if at.port else []
        if alone:
            return [*command, *words, "--", at.host]
        return [*command, "-T", "--", at.host, *words[1:]]

    def _has_control_path(self) -> bool:
        """Whether the user's configuration shares logins already."""
        done = subprocess.run(self._command("-G"), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = _lines(done.stderr)
            raise ConfigError(
                f"ssh does not take these options: {lines[-1] if lines else 'it says nothing'}",
                hint="check --ssh-option and your SSH configuration",
            )
        found = re.search(r"^controlpath (\S+)", done.stdout, re.MULTILINE)
        return found is not None and found[1] != "none"


def _lines(text: str) -> list[str]:
    """What was said, without what OpenSSH says of keys it has just learnt."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("Warning: Permanently added")]


_Known = tuple[type[TrtpackError], str, str]
_SAID: tuple[tuple[str, _Known], ...] = (
    (
        "Could not resolve hostname",
        (ConfigError, "there is no host {host}", "check --on and your SSH configuration"),
    ),
    (
        "Host key verification failed",
        (
            ConfigError,
            "{at} is not known to this host, or is another than it was",
            "log in once by hand and compare the key: ssh {at}",
        ),
    ),
    (
        "Permission denied",
        (
            DeviceError,
            "{at} refuses the login",
            "set a key up: ssh-copy-id {at}; then this works: ssh -o BatchMode=yes {at} true",
        ),
    ),
    (
        "Connection refused",
        (
            UnreachableError,
            "no SSH server answers at {at}",
            "start sshd there or correct the port",
        ),
    ),
    *(
        (text, (UnreachableError, "{at} cannot be reached", "check its network and that it is on"))
        for text in (
            "timed out",
            "No route to host",
            "Network is unreachable",
            "Connection closed",
            "Connection reset",
            "not responding",
        )
    ),
)


def _known(line: str) -> _Known | None:
    return next((told for text, told in _SAID if text in line), None)
