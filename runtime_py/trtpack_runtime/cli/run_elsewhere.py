# SPDX-License-Identifier: Apache-2.0
"""``trtpack run --on``: the same command on another device, its files brought there and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..errors import ConfigError

ENTRY_POINTS = "trtpack.devices"
"""Scheme of an address -> what runs a bundle there; the packager brings ``ssh``."""

HERE = ("bundle", "on", "ssh_options", "remote_python", "lease_timeout_s")
"""The parameters that say where, and are not told there."""


def run_elsewhere(context: click.Context, given: Mapping[str, Any]) -> int:
    """Runs the command of ``context`` on the device of ``--on``; answers the exit code there.

    Args:
        context: the command as it was called.
        given: the values of ``HERE``.

    Raises:
        TrtpackError: the device cannot be used; a file is not there.
    """
    scheme = str(given["on"]).partition("://")[0]
    point = next(iter(entry_points(group=ENTRY_POINTS, name=scheme)), None)
    if point is None:
        raise ConfigError(
            f"nothing here runs bundles on {given['on']}",
            hint="write it as ssh://user@host, and install what logs in there: pip install trtpack",
        )
    bundle: Path = given["bundle"]
    files = _Files(bundle)
    words = files.words(context)
    for path in (bundle, *files.gives.values()):
        if not path.is_file():
            raise ConfigError(f"there is no file {path}", hint="check the path")
    for path in files.takes.values():
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {path}", hint="name a file in a folder that is there")
    quiet = bool(context.params.get("quiet") or context.params.get("as_json"))

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    code: int = point.load()(
        given["on"],
        bundle,
        words,
        gives=files.gives,
        takes=files.takes,
        ssh_options=given["ssh_options"],
        python=given["remote_python"],
        lease_timeout_s=given["lease_timeout_s"],
        write=_write,
        say=say,
    )
    return code


_TAKEN = ("tmp", "cache", "data", "cuda", "triton", "inductor", "scratch")
"""Names of what is in the folder on the device besides."""


class _Files:
    """The files of a command line, by the names that they have on the device."""

    def __init__(self, bundle: Path) -> None:
        self.gives: dict[str, Path] = {}
        self.takes: dict[str, Path] = {}
        self._used = {bundle.name, *_TAKEN}

    def words(self, context: click.Context) -> list[str]:
        """The command line for the device: what was given, with its own files' names."""
        found: list[str] = []
        for parameter in context.command.params:
            name = parameter.name or ""
            source = context.get_parameter_source(name)
            if name in HERE or source in (None, ParameterSource.DEFAULT):
                continue
            value = context.params.get(name)
            values = value if parameter.multiple else (value,)
            flag = max(parameter.opts, key=len)  # the long one
            if isinstance(parameter, click.Option) and parameter.is_flag:
                found += [flag] if value else []
            else:
                found += [f"{flag}={self._there(name, item)}" for item in values or ()]
        return found

    def _there(self, name: str, value: Any) -> str:
        if name == "inputs":
            key, mark, file = str(value).rpartition("=")
            return f"{key}{mark}{self._kept(self.gives, Path(file))}"
        if name == "against":
            return self._kept(self.gives, Path(value))
        if name in ("output", "junit"):
            return self._kept(self.takes, Path(value))
        if name == "tolerance":
            return str(float(value) * 100)
        return str(value)

    def _kept(self, files: dict[str, Path], path: Path) -> str:
        """The file's own name, or one that no other has."""
        there = path.name
        while there in self._used:
            there = f"other-{there}"
        self._used.add(there)
        files[there] = path
        return there


def _write(stream: str, data: bytes) -> None:
    target = sys.stdout if stream == "out" else sys.stderr
    target.buffer.write(data)
    target.buffer.flush()
