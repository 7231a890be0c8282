# SPDX-License-Identifier: Apache-2.0
"""``trtpack run --on``: a bundle runs on a device, and what it says is said here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import check_room
from .login import Login, Say, take_lease

Write = Callable[[str, bytes], None]
"""Takes what the run there writes: to ``out`` or ``err``."""


def run_on(
    on: str,
    bundle: Path,
    arguments: Sequence[str],
    *,
    gives: Mapping[str, Path],
    takes: Mapping[str, Path],
    ssh_options: tuple[str, ...] = (),
    python: str = "python3",
    lease_timeout_s: float = 3600.0,
    write: Write,
    say: Say,
) -> int:
    """Runs a bundle on the device of an address; answers the exit code of the run there.

    Args:
        on: the address, ``ssh://user@host``.
        bundle: the bundle.
        arguments: what else ``trtpack run`` is told there.
        gives: the files that are there by these names before.
        takes: the files of these names that are fetched afterwards, where the run made them.
        ssh_options: further words for ``ssh``.
        python: the Python to start there.
        lease_timeout_s: how long to wait for another host.
        write: takes what the run there writes, as it does.
        say: told in clauses what happens besides.

    Raises:
        TrtpackError: the device cannot be used, or the connection was lost.
    """
    login = Login.to(on, ssh_options, python, lease_timeout_s)
    files = {bundle.name: bundle, **gives}
    sizes = {name: path.stat().st_size for name, path in files.items()}  # they are there to be read
    with login.device() as device:
        check_room(device.hello, sum(sizes.values()), login.address)
        take_lease(device, login, f"runs {bundle.name}", say)
        say(f"sending {bundle.name} to {login.address}")
        for name, path in files.items():
            device.put(path, name, lambda sent, size: None)

        def passed_on(message: Mapping[str, Any], data: bytes) -> None:
            write(message["stream"], data)

        done = device.ask("execute", passed_on, arguments=["run", *arguments, "--", bundle.name])
        for name, path in takes.items():
            if device.ask("has", name=name)["there"]:
                device.get(name, path)
        return int(done["code"])
