# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack.build`` answers: a file on disk, and what the build did."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.errors import BundleError

from ..errors import ConfigError
from ..report import BuildReport
from ..spelling import nearest

if TYPE_CHECKING:
    from trtpack_runtime.module import BundleModule


@dataclass(frozen=True)
class Bundle:
    """A built bundle: its file, and the report of its build. ``print(bundle)`` prints that."""

    path: Path
    report: BuildReport

    def load(self, **settings: Any) -> BundleModule:
        """The variant that fits this machine, as a module; ``settings`` are those of
        ``trtpack_runtime.load``.

        Raises:
            TrtpackError: those of ``trtpack_runtime.load``.
            ConfigError: an unknown setting, or a dry run wrote no bundle.
        """
        from trtpack_runtime.loading import load

        check_load(settings)
        self._check_written()
        return load(self.path, **settings)

    def save(self, path: str | os.PathLike[str]) -> Bundle:
        """Copies the file; it appears at ``path`` whole, over whatever was there.

        Raises:
            ConfigError: the disk refuses, or a dry run wrote no bundle.
            BundleError: the file is not there any more.
        """
        self._check_written()
        if not self.path.is_file():
            raise BundleError(f"the bundle is not at {self.path} any more", hint="build it again")
        place = Path(path)
        try:
            with self.path.open("rb") as source, replaced(place) as file:
                shutil.copyfileobj(source, file)
        except OSError as error:
            raise cannot_write(place, error) from error
        return replace(self, path=place)

    def __str__(self) -> str:
        return self.report.to_text()

    def _check_written(self) -> None:
        if self.report.dry_run:
            raise ConfigError("a dry run wrote no bundle", hint="build without dry_run")


def check_load(settings: Mapping[str, Any]) -> None:
    """Refuses what ``trtpack_runtime.load`` does not take.

    Raises:
        ConfigError: with the nearest that it does.
    """
    from trtpack_runtime.loading import load

    _, *known = inspect.signature(load).parameters
    for name in settings:
        if name not in known:
            near = nearest(str(name), known)
            raise ConfigError(
                f"loading has no setting {name!r}",
                hint=f"did you mean {near}?" if near else f"it has: {', '.join(known)}",
            )


def write_report(report: BuildReport, path: Path) -> None:
    """Writes a build's report as JSON; the file appears whole.

    Raises:
        ConfigError: the disk refuses.
    """
    try:
        with replaced(path) as file:
            file.write(report.to_json_text().encode())
    except OSError as error:
        raise cannot_write(path, error) from error
