# SPDX-License-Identifier: Apache-2.0
"""The engine cache: keys that do not collide, and harmlessness."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtpack.engine_cache import EngineCache, cache_key


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(b"plan")
    return path


def test_what_was_put_comes_back(tmp_path: Path, engine: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put("key", engine, {"sm": "8.9"})
    found = cache.get("key")
    assert found is not None
    assert found.path.read_bytes() == b"plan"
    assert found.record == {"sm": "8.9"}
    assert cache.get("other") is None


def test_a_truncated_engine_is_a_miss(tmp_path: Path, engine: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put("key", engine, {})
    (tmp_path / "cache" / "key.engine").write_bytes(b"pl")
    assert cache.get("key") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"size": 4}'])
def test_a_damaged_record_is_a_miss(tmp_path: Path, engine: Path, damage: bytes) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put("key", engine, {})
    (tmp_path / "cache" / "key.json").write_bytes(damage)
    assert cache.get("key") is None


def test_a_folder_that_cannot_be_written_is_harmless(tmp_path: Path, engine: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = EngineCache(blocked / "cache")
    cache.put("key", engine, {})
    assert cache.get("key") is None


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put("key", tmp_path / "missing.plan", {})
    assert list((tmp_path / "cache").iterdir()) == []


def test_keys_differ_in_any_part_and_not_in_order() -> None:
    assert cache_key({"a": 1, "b": [2]}) == cache_key({"b": [2], "a": 1})
    assert cache_key({"a": 1, "b": [2]}) != cache_key({"a": 1, "b": [3]})
