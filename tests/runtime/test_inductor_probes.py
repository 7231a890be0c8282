# SPDX-License-Identifier: Apache-2.0
"""What a compiler's child tried of the machine is given to the next one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtpack_runtime.engines import _inductor_build as inductor_build

SOURCE, LIBRARY = "ab/probe.cpp", "ab/probe.so"


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items()}


def test_the_next_child_has_what_the_first_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had: list[dict[str, bytes]] = []

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
