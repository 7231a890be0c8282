# SPDX-License-Identifier: Apache-2.0
"""Where a machine keeps what it built: on read-only disks too, within a limit, never in the way."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from trtpack_runtime import store_folder
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.store_folder import StoreFolder, limit_variable_bytes
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore

KEY = TacticKey("10.3.0", "8.7", "Orin", 16, "p3701-0005")
GB = 10**9


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRTPACK_STORE_LIMIT", raising=False)
    return tmp_path / "cache" / "trtpack"


@pytest.fixture
def spare(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spare folder that is used once the home is read-only; ``freeze`` makes it so."""
    folder = tmp_path / f"trtpack-{os.getuid()}"
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", (tmp_path / "nowhere", tmp_path))
    return folder


def freeze(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a read-only mount does: root may not write there either."""
    real = os.access

    def access(path: Path, mode: int) -> bool:
        below = Path(path) == home.parent or home.parent in Path(path).parents
        return real(path, mode) and not (mode & os.W_OK and below)

    home.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(os, "access", access)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if home in path.parents:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)


def put(store: EngineStore, key: str, folder: Path, content: bytes = b"plan") -> None:
    (folder / "plan").write_bytes(content)
    assert store.put(key, folder / "plan", {}, about={"model": key}, seconds=1.0) is not None


def test_a_writable_home_has_no_spare(home: Path) -> None:
    place = store_folder.store_folder()
    assert (place.home, place.spare, place.written, place.told) == (home, None, home, None)
    assert not home.exists()  # looking makes nothing


def test_what_is_on_a_read_only_disk_is_read_and_what_is_new_goes_elsewhere(
    home: Path, spare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(EngineStore(), "baked", tmp_path)
    TacticStore().put(KEY, Tactics(KEY, b"baked"))
    freeze(home, monkeypatch)
    engines, tactics = EngineStore(), TacticStore()
    assert engines.folder == spare / "engines"
    assert engines.place.told == f"kept in {spare}/engines, {home}/engines is read-only"
    put(engines, "new", tmp_path)
    assert {entry.key for entry in engines.entries()} == {"baked", "new"}
    assert (found := engines.get("baked")) is not None
    assert found.path.parent == home / "engines"
    assert [e.key for e in engines.prune(0)] == ["new"]  # what cannot be dropped does not count
    assert engines.get("baked") is not None
    assert tactics.put(KEY, Tactics(KEY, b"new"), lambda blobs: b"+".join(blobs))
    assert (kept := tactics.read(KEY)) is not None
    assert kept.blob == b"baked+new"
    assert len(tactics.entries()) == 1
    assert tactics.remove(KEY)
    assert (kept := tactics.read(KEY)) is not None
    assert kept.blob == b"baked"


def test_a_spare_folder_is_the_users_alone(
    home: Path, spare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(home, monkeypatch)
    assert store_folder.store_folder().spare == spare
    assert spare.stat().st_mode & 0o777 == 0o700
    spare.chmod(0o777)  # others could put engines into it
    assert store_folder.store_folder() == StoreFolder(home)
    spare.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    spare.symlink_to(tmp_path / "theirs")
    assert store_folder.store_folder().spare is None


def test_without_any_disk_nothing_is_kept_and_nothing_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", ())
    home.parent.parent.mkdir(exist_ok=True)
    (home.parent).write_bytes(b"")  # no folder at all
    store = EngineStore()
    (tmp_path / "plan").write_bytes(b"plan")
    assert store.put("a", tmp_path / "plan", {}, about={}, seconds=1.0) is None
    assert (store.get("a"), store.entries(), store.prune(0)) == (None, [], [])
    assert TacticStore().read(KEY) is None


def test_a_home_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1/none")
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", (tmp_path,))
    assert store_folder.store_folder().spare == tmp_path / f"trtpack-{os.getuid()}"


def test_a_limit_is_said_or_half_of_what_the_disk_has(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 6 * GB
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert EngineStore().limit_bytes == 3 * GB
    put(EngineStore(), "a", tmp_path, bytes(1000))
    assert EngineStore().limit_bytes == 3 * GB + 500
    free = 900 * GB
    assert EngineStore().limit_bytes == store_folder.LIMIT_BYTES
    monkeypatch.setenv("TRTPACK_STORE_LIMIT", "2G")
    assert EngineStore().limit_bytes == limit_variable_bytes() == 2 * GB
    assert EngineStore(limit_bytes=7).limit_bytes == 7
    monkeypatch.setenv("TRTPACK_STORE_LIMIT", "lots")
    with pytest.raises(ConfigError, match=r"TRTPACK_STORE_LIMIT: bad size 'lots'"):
        EngineStore()


def test_a_disk_that_is_nearly_full_gets_room_for_the_newest(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EngineStore(tmp_path / "engines", limit_bytes=GB)
    for age, key in enumerate("ab"):
        put(store, key, tmp_path, bytes(10 << 20))
        os.utime(store.folder / f"{key}.engine", (1000 + age, 1000 + age))
    free = 60 << 20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    put(store, "c", tmp_path, bytes(4 << 20))
    assert {entry.key for entry in store.entries()} == {"b", "c"}
