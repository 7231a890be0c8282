# SPDX-License-Identifier: Apache-2.0
"""What this machine built is remembered; nothing that goes wrong there is more than forgetting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.bundles import write_tiny
from trtpack_runtime import ledger
from trtpack_runtime.bundle import open_bundle

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "trtpack" / "built.json"


def test_what_was_recorded_is_trusted(path: Path) -> None:
    assert not ledger.trusted(ONE, path)
    assert ledger.record([ONE], path)
    assert ledger.trusted(ONE, path)
    assert not ledger.trusted(TWO, path)
    assert ledger.record([TWO], path)
    assert ledger.trusted(ONE, path)
    assert ledger.trusted(TWO, path)


def test_of_a_bundle_only_members_with_code(path: Path, tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny.tar")
    assert ledger.record(tiny, path)
    entries = open_bundle(tiny).entries
    trusted = [name for name, entry in entries.items() if ledger.trusted(entry.sha256, path)]
    assert trusted == ["engines/cpu/forward_0.pt2"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"built": 3}', b"\xff"])
def test_a_damaged_ledger_trusts_nothing_and_heals(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert not ledger.trusted(ONE, path)
    assert ledger.record([ONE], path)
    assert ledger.trusted(ONE, path)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "built.json"
    assert not ledger.record([ONE], path)
    assert not ledger.trusted(ONE, path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_the_ledger_of_another_user_trusts_nothing(path: Path) -> None:
    ledger.record([ONE], path)
    os.chown(path, 12345, 12345)
    assert not ledger.trusted(ONE, path)


def test_it_does_not_grow_for_ever(path: Path) -> None:
    digests = [f"{i:064x}" for i in range(5000)]
    ledger.record(digests, path)
    assert ledger.trusted(digests[-1], path)
    assert not ledger.trusted(digests[0], path)
    assert path.stat().st_size < 400_000


def test_processes_do_not_lose_each_others_records(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trtpack_runtime import ledger\n"
        "for i in range(20): assert ledger.record([f'{sys.argv[2]}{i:063d}'], Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert all(ledger.trusted(f"{n}{i:063d}", path) for n in range(3) for i in range(20))
    assert {p.name for p in path.parent.iterdir()} == {"built.json", "built.lock"}


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert ledger.default_path() == Path("/data/trtpack/built.json")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert ledger.default_path() == Path("/home/me/.local/share/trtpack/built.json")
