# SPDX-License-Identifier: Apache-2.0
"""``trtpack verify`` compares everything, says how much that was, and names what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.runtime.bundles import CODE, write_tiny
from tests.runtime.command import trtpack
from trtpack_runtime.bundle import open_bundle


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.tar")


def test_a_sound_bundle(tiny: Path) -> None:
    done = trtpack("verify", tiny)
    assert (done.code, done.err) == (0, "")
    sound, digest = done.out.splitlines()
    assert sound.startswith(f"{tiny}: sound, 4 members with 111 kB match their digests (")
    assert digest == f"digest {open_bundle(tiny).digest}"


def test_as_json(tiny: Path) -> None:
    found = json.loads(trtpack("verify", "--json", tiny).out)
    assert found.pop("seconds") >= 0
    assert found == {
        "bundle": str(tiny),
        "digest": open_bundle(tiny).digest,
        "members": 4,
        "bytes": sum(entry.size for entry in open_bundle(tiny).entries.values()),
    }


def test_a_changed_byte_names_the_member(tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[data.index(CODE) + 50_000] ^= 0x10
    tiny.write_bytes(data)
    done = trtpack("verify", tiny)
    assert (done.code, done.out) == (5, "")
    error, hint = done.err.splitlines()
    assert re.fullmatch(
        r"error: .*tiny\.tar: engines/cpu/forward_0\.pt2 is corrupt, wants sha256 [0-9a-f]{12}, "
        r"has [0-9a-f]{12}",
        error,
    )
    assert hint == "hint: copy the bundle again, or build it again"


def test_no_such_file(tmp_path: Path) -> None:
    done = trtpack("verify", tmp_path / "missing.tar")
    assert done.code == 5
    assert done.err.startswith(f"error: cannot open {tmp_path / 'missing.tar'}: no such file")
