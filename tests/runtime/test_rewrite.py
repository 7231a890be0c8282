# SPDX-License-Identifier: Apache-2.0
"""A bundle written anew: what is not exchanged stays byte for byte, and nothing is lost."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.bundles import CODE, members, write_tiny
from trtpack_runtime.bundle import Bundle, Member, open_bundle
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.manifest import EngineRef, Manifest
from trtpack_runtime.rewrite import rewrite

PLAN = "engines/orin/forward_0.plan"
CACHE = "caches/orin/timing.cache"
LOCK = "caches/orin/timing.lock.json"
KEY = {"tensorrt": "10.3.0", "sm": "8.7", "device": "Orin"}


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return open_bundle(write_tiny(tmp_path / "x.tar"))


def finished(bundle: Bundle) -> Manifest:
    """The manifest with an engine and a tactic cache for ``orin``."""
    orin = replace(
        bundle.manifest.variants["orin"],
        engines={"forward_0": EngineRef("tensorrt", PLAN, {"sm": "8.7"}, content="a" * 64)},
        caches={"timing": {"member": CACHE, "lock": LOCK, "key": KEY}},
    )
    return replace(bundle.manifest, variants={**bundle.manifest.variants, "orin": orin})


def new() -> list[Member]:
    return [Member(CACHE, b"cache"), Member(LOCK, b"{}"), Member(PLAN, b"plan" * 30000)]


def test_what_is_kept_is_the_same_bytes(tiny: Bundle, tmp_path: Path) -> None:
    rewrite(tiny, tmp_path / "y.tar", manifest=finished(tiny), add=new())
    other = open_bundle(tmp_path / "y.tar", verify="full")
    for name, entry in tiny.entries.items():
        assert other.entries[name] == entry
        assert bytes(other.member(name)) == bytes(tiny.member(name))
    assert list(other.entries) == [*tiny.entries, PLAN, CACHE, LOCK]
    assert other.manifest.variants["orin"].caches["timing"]["key"] == KEY
    assert other.manifest.variants["orin"].engines["forward_0"].content == "a" * 64


def test_nothing_changed_is_the_same_file(tiny: Bundle, tmp_path: Path) -> None:
    rewrite(tiny, tmp_path / "y.tar", manifest=tiny.manifest)
    assert (tmp_path / "y.tar").read_bytes() == tiny.path.read_bytes()


def test_a_member_is_exchanged_where_it_stands_and_one_left_out(
    tiny: Bundle, tmp_path: Path
) -> None:
    cpu = replace(tiny.manifest.variants["cpu"], engines={})
    without = replace(tiny.manifest, variants={"cpu": cpu})
    program = Member("programs/forward/cpu.json", b"{}")
    engine = members()[-1].name
    rewrite(tiny, tmp_path / "y.tar", manifest=without, add=[program], drop=[engine])
    other = open_bundle(tmp_path / "y.tar")
    assert list(other.entries) == [name for name in tiny.entries if name != engine]
    assert bytes(other.member(program.name)) == b"{}"


def test_a_bundle_is_rewritten_in_its_place_while_it_is_open(tiny: Bundle) -> None:
    rewrite(tiny, tiny.path, manifest=finished(tiny), add=new())
    assert bytes(tiny.member("engines/cpu/forward_0.pt2")) == CODE
    assert PLAN in open_bundle(tiny.path, verify="full").entries


def test_a_corrupt_member_is_not_copied(tiny: Bundle, tmp_path: Path) -> None:
    data = bytearray(tiny.path.read_bytes())
    data[data.index(b"machine code") + 5] ^= 1
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(data)
    with pytest.raises(BundleError, match=r"forward_0\.pt2 is corrupt"):
        rewrite(open_bundle(damaged), tmp_path / "y.tar", manifest=tiny.manifest)
    assert not (tmp_path / "y.tar").exists()


def test_a_full_disk_keeps_what_was_there(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="no space left"):
        rewrite(tiny, tiny.path, manifest=finished(tiny), add=new())
    assert tiny.path.read_bytes() == before
    assert [p.name for p in tiny.path.parent.iterdir()] == ["x.tar"]


def test_a_manifest_that_names_what_is_gone_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"caches\.timing\.member refers to caches/orin"):
        rewrite(tiny, tmp_path / "y.tar", manifest=finished(tiny), add=new()[1:])
