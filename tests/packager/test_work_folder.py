# SPDX-License-Identifier: Apache-2.0
"""The folder of a build's files: gone however the build ends, unnamed where the disk is full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from trtpack.errors import ConfigError
from trtpack.work_folder import work_folder
from trtpack_runtime.atomic import cannot_write
from trtpack_runtime.errors import EngineBuildError

FULL = OSError(errno.ENOSPC, "No space left on device", "x.plan")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        caused(cannot_write(Path("x"), FULL), FULL),
        EngineBuildError("forward_0: cannot write plan: no space left on device"),
    ],
    ids=["system", "reported", "told by a child"],
)
def test_a_full_disk_is_told_about_the_output(tmp_path: Path, error: Exception) -> None:
    output = tmp_path / "b.tar"
    with pytest.raises(ConfigError) as caught, work_folder(output):
        raise error
    assert caught.value.message == f"cannot write {output}: no space left on device"
    assert caught.value.__cause__ is error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("free", "kind"), [(1000, ConfigError), (1 << 30, EngineBuildError)])
def test_a_builder_that_died_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(kind), work_folder(tmp_path / "b.tar"):
        raise EngineBuildError("the compiler died with signal 6")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_other_errors_pass(tmp_path: Path, error: BaseException) -> None:
    def begin() -> None:
        with work_folder(tmp_path / "b.tar") as folder:
            (folder / "weights").write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        begin()
    assert caught.value is error
    assert not list(tmp_path.iterdir())
