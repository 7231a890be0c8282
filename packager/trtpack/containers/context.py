# SPDX-License-Identifier: Apache-2.0
"""Writes the folder that an image of one bundle is built from, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from trtpack_runtime.atomic import cannot_write

from ..errors import ConfigError
from ..runtime_wheel import runtime_members
from .dockerfile import IGNORED, MARK, dockerfile
from .recipe import Recipe


def write_context(recipe: Recipe, folder: Path) -> None:
    """Writes ``Dockerfile``, ``.dockerignore``, the runtime's wheels and the bundle.

    What stands at ``folder`` is replaced where it is empty or was written so before.

    Raises:
        ConfigError: something else stands there, or the disk refuses; nothing is left behind.
    """
    check_place(folder)
    try:
        with tempfile.TemporaryDirectory(
            dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".partial"
        ) as temporary:
            made = Path(temporary) / "context"
            made.mkdir()
            fill(recipe, made)
            if folder.exists():
                folder.rename(Path(temporary) / "replaced")
            made.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def fill(recipe: Recipe, folder: Path) -> None:
    """The files in an empty folder."""
    (folder / "Dockerfile").write_text(dockerfile(recipe))
    (folder / ".dockerignore").write_text(IGNORED)
    (folder / "wheels").mkdir()
    for wheel in runtime_members():
        assert isinstance(wheel.source, bytes)
        (folder / "wheels" / Path(wheel.name).name).write_bytes(wheel.source)
    shutil.copyfile(recipe.bundle, folder / "bundle.tar")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # what COPY takes over


def check_place(folder: Path) -> None:
    """Refuses a place where no context can be written, before any work.

    Raises:
        ConfigError: it is no folder, holds something else, or may not be written.
    """
    parent = folder.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="choose another --output")
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
        raise ConfigError(
            f"folder {folder} holds other files, which would be lost",
            hint="choose a new folder for --output, or empty it",
        )
    if not parent.is_dir():
        raise ConfigError(f"there is no folder {parent}", hint="create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"folder {parent} is not writable", hint="choose another --output")


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / "Dockerfile").read_text().startswith(MARK)
    except (OSError, ValueError):
        return False
