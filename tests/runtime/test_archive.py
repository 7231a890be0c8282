# SPDX-License-Identifier: Apache-2.0
"""The file's layout: the same bytes each time, and nothing but what the manifest lists."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.bundles import archive_bytes, entry, manifest_json, members, write_tiny
from trtpack_runtime.archive import Archive
from trtpack_runtime.archive_writer import Member, write_archive
from trtpack_runtime.bundle import open_bundle, write_bundle
from trtpack_runtime.errors import BundleError, ConfigError, InternalError
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.mapping import mapped
from trtpack_runtime.tar_layout import ALIGNMENT, BLOCK, LARGE, Entry, check_name, headers

A, B = ("a.json", b"first\n"), ("b/c.bin", bytes(range(256)) * 300)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.tar")


def opened(folder: Path, data: bytes, *listed: tuple[str, bytes]) -> Archive:
    """Indexes these bytes as an archive that should hold the listed members."""
    path = folder / "x.tar"
    path.write_bytes(data)
    archive = Archive(path)
    archive.index([entry(*member) for member in listed])
    return archive


def test_members_come_back_in_order(tmp_path: Path) -> None:
    archive = opened(tmp_path, archive_bytes(b"{}", [A, B]), A, B)
    assert archive.manifest == b"{}"
    assert archive.part("a.json") == A[1]
    assert archive.part("b/c.bin") == B[1]


def test_the_writer_makes_what_the_layout_says(tmp_path: Path) -> None:
    entries = write_archive(tmp_path / "x", [Member(*A), Member(*B)], lambda entries: b"{}")
    assert entries == [entry(*A), entry(*B)]
    assert (tmp_path / "x").read_bytes() == archive_bytes(b"{}", [A, B])


def test_tar_tools_read_it(tiny: Path) -> None:
    wanted = ["manifest.json", *open_bundle(tiny).entries]
    listed = subprocess.run(["tar", "tf", tiny], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == wanted
    assert not listed.stderr
    with tarfile.open(tiny) as archive:
        assert archive.getnames() == wanted
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}
        for name in wanted[1:]:
            content = archive.extractfile(name)
            assert content is not None
            assert content.read() == open_bundle(tiny).member(name)


def test_large_members_are_aligned(tiny: Path) -> None:
    with tarfile.open(tiny) as archive:
        large = [m for m in archive if m.size >= LARGE]
    assert {m.name for m in large} == {"engines/cpu/forward_0.pt2"}
    assert all(m.offset_data % ALIGNMENT == 0 for m in large)


@given(st.integers(0, 40).map(lambda n: n * BLOCK), st.sampled_from([LARGE, 9 << 30]))
def test_alignment_holds_wherever_a_member_stands(position: int, size: int) -> None:
    block = headers(Entry("w", size, "0" * 64), position)
    assert (position + len(block)) % ALIGNMENT == 0
    assert len(block) <= ALIGNMENT + 2 * BLOCK


def test_members_of_more_than_8_gibibytes(tmp_path: Path) -> None:
    size, path = 9 << 30, tmp_path / "x.tar"
    start = headers(entry("manifest.json", b"{}"), 0) + b"{}" + bytes(BLOCK - 2)
    start += headers(Entry("big", size, "0" * 64), len(start))
    path.write_bytes(start)
    os.truncate(path, len(start) + size + 2 * BLOCK)  # sparse
    archive = Archive(path)
    archive.index([Entry("big", size, "0" * 64)])
    assert len(archive.part("big")) == size
    with tarfile.open(path) as read:
        assert [(m.name, m.size, m.offset_data) for m in read][1] == ("big", size, len(start))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems reserve memory")
def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 40)  # sparse
    assert len(mapped(path)) == 1 << 40


def test_twice_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    time.sleep(1.1)  # a stored time would differ
    assert write_tiny(tmp_path / "again.tar").read_bytes() == tiny.read_bytes()


REFUSED = {
    "reordered": ([B, A], [A, B], "b/c.bin is out of order"),
    "unlisted at the end": ([A, B], [A], "b/c.bin is not listed"),
    "unlisted before others": ([A, B], [B], "a.json is not listed"),
    "missing at the end": ([A], [A, B], "lacks b/c.bin"),
    "missing before others": ([B], [A, B], "b/c.bin is out of order, wants a.json"),
    "missing all": ([], [A], "lacks a.json"),
    "twice": ([A, A, B], [A, B], "a.json stands twice"),
    "other size": ([("a.json", b"fir")], [A], "the header of a.json is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_members_than_listed_are_refused(case: str, tmp_path: Path) -> None:
    stored, listed, complaint = REFUSED[case]
    with pytest.raises(BundleError, match=complaint) as caught:
        opened(tmp_path, archive_bytes(b"{}", stored), *listed)
    assert caught.value.member in ("a.json", "b/c.bin")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../b", "a//b", "a\\b", "", "a\n", "é",
                                  "manifest.json", "a/", "x" * 101])  # fmt: skip
def test_unsafe_names(name: str) -> None:
    assert check_name(name)
    with pytest.raises(InternalError):
        write_archive(Path("unused"), [Member(name, b"")], lambda entries: b"{}")


@pytest.mark.parametrize(
    "name",
    ["a", "engines/rtx-4090/forward_0.plan", "x" * 100, "runtime/x-0.1.0+cpu.whl", "o@jetpack-7.2"],
)
def test_good_names(name: str) -> None:
    assert check_name(name) is None


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6", b"L"])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    data = bytearray(archive_bytes(b"{}", [A]))
    header = slice(4 * BLOCK, 5 * BLOCK)
    info = tarfile.TarInfo.frombuf(bytes(data[header]), "ascii", "strict")
    assert info.name == "a.json"
    info.type, info.mode, info.mtime, info.linkname = kind, 0o644, 0, "/etc/passwd"
    data[header] = info.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(BundleError, match=r"the header of a\.json is damaged"):
        opened(tmp_path, bytes(data), A)


@pytest.mark.parametrize("extra", [b"\0", b"x", bytes(BLOCK), b"PK\5\6" + bytes(18)])
def test_bytes_after_the_end_are_refused(extra: bytes, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has bytes after its end"):
        opened(tmp_path, archive_bytes(b"{}", [A]) + extra, A)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\3\4" * 2000, bytes(4000), b"{}" * 4000])
def test_other_files_are_no_bundle(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"is no bundle|the file is empty") as caught:
        open_bundle(path)
    assert str(path) in caught.value.message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot open .*missing\.tar: no such file"):
        open_bundle(tmp_path / "missing.tar")
    with pytest.raises(BundleError, match="is a directory"):
        open_bundle(tmp_path)


def test_a_newer_format_says_what_to_do(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tiny.read_bytes().replace(b"trtpack.bundle/1 ", b"trtpack.bundle/2 ", 1))
    with pytest.raises(BundleError, match=r"trtpack\.bundle/2, this runtime reads") as caught:
        open_bundle(path)
    assert "update trtpack-runtime" in caught.value.hint
    assert (caught.value.wants, caught.value.has) == ("trtpack.bundle/2", "trtpack.bundle/1")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_noticed(tiny: Path, tmp_path_factory: pytest.TempPathFactory,
                                    data: st.DataObject) -> None:  # fmt: skip
    whole = bytearray(tiny.read_bytes())
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    path.write_bytes(whole)
    with pytest.raises(BundleError):
        open_bundle(path, verify="full")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_truncation_is_noticed(tiny: Path, tmp_path_factory: pytest.TempPathFactory,
                                   data: st.DataObject) -> None:  # fmt: skip
    whole = tiny.read_bytes()
    path = tmp_path_factory.getbasetemp() / "truncated.tar"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BundleError):
        open_bundle(path)


def test_truncation_names_the_member(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tiny.read_bytes()[:-5000])
    with pytest.raises(BundleError, match=r"ends inside engines/cpu/forward_0\.pt2") as caught:
        open_bundle(path)
    assert caught.value.member == "engines/cpu/forward_0.pt2"
    assert caught.value.has == path.stat().st_size


class Failing:
    """Content that breaks off in the middle."""

    size = 1 << 20

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def pieces(self) -> Iterator[bytes]:
        yield bytes(self.size // 2)
        raise self.error


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ConfigError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a bug"), RuntimeError),
    ],
    ids=["disk full", "ctrl-c", "bug"],
)
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_write_leaves_what_was_there(
    error: BaseException, seen: type[BaseException], existing: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    if existing:
        write_tiny(path)
    before = path.read_bytes() if existing else None
    with pytest.raises(seen):
        write_bundle(
            path,
            Manifest.from_json(manifest_json()),
            [*members()[:-1], Member("engines/cpu/forward_0.pt2", Failing(error))],
        )
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    assert before is None or path.read_bytes() == before


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        kept = write_tiny(disk / "x.tar").read_bytes()
        with pytest.raises(ConfigError, match="no space left on device") as caught:
            write_archive(disk / "x.tar", [Member("big", bytes(1 << 20))], lambda entries: b"{}")
        assert "free space" in caught.value.hint
        assert (disk / "x.tar").read_bytes() == kept
        assert [path.name for path in disk.iterdir()] == ["x.tar"]
    finally:
        subprocess.run(["umount", disk], check=True)


SLOW_WRITER = """
import sys, time
from pathlib import Path
from trtpack_runtime.archive_writer import Member, write_archive
class Slow:
    size = 2
    def pieces(self):
        yield b"a"
        print("writing", flush=True)
        time.sleep(60)
write_archive(Path(sys.argv[1]), [Member("slow", Slow())], lambda entries: b"{}")
"""


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, tmp_path / "x.tar"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"writing\n"
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        write_archive(tmp_path / "no" / "x.tar", [], lambda entries: b"{}")


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gone"):
        write_archive(tmp_path / "x", [Member("a", tmp_path / "gone")], lambda entries: b"{}")


def test_content_of_another_size_is_a_bug(tmp_path: Path) -> None:
    class Short:
        size = 3

        def pieces(self) -> Iterator[bytes]:
            yield b"ab"

    with pytest.raises(InternalError, match="has 2 bytes, not the 3"):
        write_archive(tmp_path / "x", [Member("a", Short())], lambda entries: b"{}")
    assert not list(tmp_path.iterdir())


def test_the_new_file_has_the_permissions_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for mode in (0o600, 0o644):
        path.touch()
        path.chmod(mode)
        write_archive(path, [], lambda entries: b"{}")
        assert path.stat().st_mode & 0o777 == mode
