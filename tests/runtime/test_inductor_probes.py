# SPDX-License-Identifier: Apache-2.0
"""What a compiler's child tried of the machine is given to the next one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trtpack_runtime import store_folder
from trtpack_runtime.engines import _inductor_build as inductor_build
from trtpack_runtime.engines._inductor_child import _LOAD

SOURCE, LIBRARY = "ab/probe.cpp", "ab/probe.so"


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items()}


@pytest.mark.parametrize("can_keep", [True, False])
def test_the_next_child_has_what_the_first_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_keep: bool
) -> None:
    """Of the same process, and of another where it can be kept."""
    had: list[dict[str, bytes]] = []
    home = tmp_path / "home"
    if not can_keep:
        home.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", ())

    def child(folder: Path, log: object) -> tuple[list[str], int]:
        probes = folder / "probes"
        had.append(files(probes))
        for name in (SOURCE, LIBRARY, "locks/probe.lock", "ab/other.o"):
            (probes / name).parent.mkdir(parents=True, exist_ok=True)
            (probes / name).write_bytes(name.encode() + bytes([len(had)]))
        if len(had) > 1:  # the first was killed
            (folder / "answer.json").write_text(json.dumps({"record": {}}))
        return [], 0 if len(had) > 1 else -9

    monkeypatch.setattr(inductor_build, "_TRIED", {})
    monkeypatch.setattr(inductor_build, "_run_child", child)
    with pytest.raises(inductor_build.EngineBuildError, match="died with signal 9"):
        inductor_build.build_in_child({}, [], [], tmp_path / "a.pt2")
    for _ in range(3):
        inductor_build.build_in_child({}, [], [], tmp_path / "a.pt2")
    second = {name: name.encode() + b"\x02" for name in (SOURCE, LIBRARY)}
    assert had == [{}, {}, second, second]
    monkeypatch.setattr(inductor_build, "_TRIED", {})
    inductor_build.build_in_child({}, [], [], tmp_path / "a.pt2")
    assert had[4] == (second if can_keep else {})


def test_what_loads_is_tried_without_importing_pytorch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("print('imported', end='')")

    def tried(library: str) -> tuple[bool, str]:
        program = _LOAD.replace("__lib_path__", library)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        return done.returncode == 0, done.stdout

    assert tried("libc.so.6") == (True, "")
    assert tried("libnothing.so") == (False, "imported")
