# SPDX-License-Identifier: Apache-2.0
"""safetensors files: what is written is read, by others too; what is wrong is refused."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trtpack_runtime.errors import BundleError, ConfigError, InternalError
from trtpack_runtime.safetensors import (
    ALIGNMENT,
    BITS,
    Encoded,
    TensorView,
    metadata,
    open_safetensors,
    parse,
    write_safetensors,
)


def view(name: str, dtype: str, *shape: int) -> TensorView:
    size = math.prod(shape) * BITS[dtype] // 8
    return TensorView(name, dtype, shape, memoryview(bytes(i * 7 % 251 for i in range(size))))


def file_bytes(*tensors: TensorView) -> bytes:
    return b"".join(Encoded(tensors).pieces())


def raw(header: Any, data: bytes = b"") -> memoryview:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(struct.pack("<Q", len(text)) + text + data)


def item(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


tensors = st.lists(
    st.builds(
        lambda name, dtype, shape: view(name, dtype, *shape),
        st.text(max_size=12).filter(lambda name: not name.startswith("__")),
        st.sampled_from([dtype for dtype, bits in BITS.items() if bits >= 8]),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    max_size=6,
    unique_by=lambda tensor: tensor.name,
)


@given(tensors)
def test_what_is_written_is_read(written: list[TensorView]) -> None:
    data = file_bytes(*written)
    assert len(data) == Encoded(written).size
    assert list(parse(memoryview(data), "file").values()) == written


@given(tensors)
def test_every_tensor_is_aligned(written: list[TensorView]) -> None:
    data = memoryview(file_bytes(*written))
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(bytes(data[8 : 8 + length]))
    assert (8 + length) % ALIGNMENT == 0
    for tensor in written:
        assert (8 + length + header[tensor.name]["data_offsets"][0]) % ALIGNMENT == 0


def test_types_smaller_than_a_byte() -> None:
    packed = view("q", "F4", 6, 3)
    assert packed.nbytes == 9
    assert parse(memoryview(file_bytes(packed)), "file") == {"q": packed}


def test_the_official_library_reads_it(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.numpy")
    written = [view("a", "F32", 3, 5), view("n", "I64"), view("e", "F16", 0, 4), view("b", "U8", 9)]
    write_safetensors(tmp_path / "x.safetensors", written, {"who": "me"})
    read = official.load_file(tmp_path / "x.safetensors")
    for tensor in written:
        assert read.pop(tensor.name).tobytes() == bytes(tensor.buffer)
    assert all(name.startswith("__padding__.") for name in read)


def test_it_reads_what_the_official_library_wrote(tmp_path: Path) -> None:
    official, numpy = pytest.importorskip("safetensors.numpy"), pytest.importorskip("numpy")
    values = {"odd": numpy.arange(3, dtype="int8"), "x": numpy.ones((2, 3), "float32")}
    official.save_file(values, tmp_path / "x.safetensors", {"who": "me"})
    read = open_safetensors(tmp_path / "x.safetensors")
    assert {name: read[name].numpy().tolist() for name in values} == {
        name: value.tolist() for name, value in values.items()
    }
    assert metadata(memoryview((tmp_path / "x.safetensors").read_bytes()), "x") == {"who": "me"}


def test_writing_to_a_tensor_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [view("a", "F32", 4)])
    before = path.read_bytes()
    array = open_safetensors(path)["a"].numpy()
    array[:] = 5
    assert array.tolist() == [5, 5, 5, 5]
    assert path.read_bytes() == before


def test_numpy_lacks_bfloat16() -> None:
    with pytest.raises(TypeError, match="BF16"):
        view("a", "BF16", 2).numpy()


def test_as_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    tensor = TensorView("a", "BF16", (2, 1), memoryview(bytearray(b"\x80?\0@"))).tensor()
    assert tensor.dtype is torch.bfloat16
    assert tensor.tolist() == [[1.0], [2.0]]
    assert view("a", "F32", 0, 3).tensor().shape == (0, 3)


@dataclass
class Watched:
    """A tensor that tells when its memory is asked for."""

    name: str
    asked: list[str]
    shape: tuple[int, ...] = (1 << 20,)
    dtype: str = "F32"

    @property
    def buffer(self) -> bytes:
        self.asked.append(self.name)
        return bytes(4 << 20)


def test_no_more_than_one_tensor_is_held(tmp_path: Path) -> None:
    asked: list[str] = []
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "x", [Watched(f"w{i}", asked) for i in range(8)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert asked == [f"w{i}" for i in range(8)]
    assert peak < 2.5 * (4 << 20)


def test_further_names_share_the_bytes_of_a_tensor() -> None:
    data = b"".join(Encoded([view("a", "F32", 3)], same={"b": "a", "c": "a"}).pieces())
    plain = b"".join(Encoded([view("a", "F32", 3)]).pieces())
    found = parse(memoryview(data), "file")
    assert [(v.name, v.same_as) for v in found.values()] == [("a", None), ("b", "a"), ("c", "a")]
    assert bytes(found["c"].buffer) == bytes(found["a"].buffer)
    assert found["b"].shape == (3,)
    assert len(data) - len(plain) < 2 * ALIGNMENT
    with pytest.raises(InternalError, match="no tensor x to be the same as"):
        Encoded([view("a", "F32", 3)], same={"b": "x"})


def test_memory_is_handed_out_not_copied() -> None:
    big = TensorView("big", "U8", (1 << 24,), memoryview(bytearray(1 << 24)))
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in Encoded([big]).pieces()) > 1 << 24
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


MALFORMED = [
    (memoryview(b"1234567"), "is too short"),
    (memoryview(struct.pack("<Q", 9) + b"{}"), "header longer than it can be"),
    (memoryview(struct.pack("<Q", 1 << 63) + b"{}"), "header longer than it can be"),
    (raw(b" {}"), "has no JSON header"),
    (raw(b"{nonsense}"), "malformed header"),
    (raw(b"{\xff}"), "malformed header"),
    (raw(b"{" * 5), "malformed header"),
    (raw(b'{"a":' + b"[" * 100_000), "malformed header"),
    (raw(b'{"a": 1, "a": 1}'), "'a' stands twice"),
    (raw({"a": 1}), "tensor a lacks"),
    (raw({"a": {"dtype": "F32", "shape": [1]}}), "tensor a lacks"),
    (raw({"a": item("F33", [1], 0, 4)}, bytes(4)), "unknown type 'F33'"),
    (raw({"a": item("F32", [-1], 0, 4)}, bytes(4)), "has -1 for a size"),
    (raw({"a": item("F32", [1.0], 0, 4)}, bytes(4)), "has 1.0 for a size"),
    (raw({"a": item("F32", [True], 0, 4)}, bytes(4)), "has True for a size"),
    (raw({"a": item("F32", [1], 4, 0)}, bytes(4)), "ends before it begins"),
    (raw({"a": item("F32", [2], 0, 4)}, bytes(4)), "wrong size, wants 8, has 4"),
    (raw({"a": item("F4", [1], 0, 1)}, bytes(1)), "wrong size"),
    (raw({"a": item("U8", [4], 0, 4)}, bytes(3)), "ends inside tensor a"),
    (raw({"a": item("U8", [4], 0, 4)}, bytes(5)), "bytes after its last tensor"),
    (raw({"a": item("U8", [4], 1, 5)}, bytes(5)), "leaves a hole before"),
    (
        raw({"a": item("U8", [4], 0, 4), "b": item("U8", [2], 3, 5)}, bytes(5)),
        "tensor b overlaps the tensor before it",
    ),
    (raw({"__metadata__": {"a": 1}}), "more than strings"),
    (raw({"__metadata__": []}), "more than strings"),
    (raw({"__metadata__": {"trtpack.same": "{"}}), "malformed trtpack.same"),
    (raw({"__metadata__": {"trtpack.same": "[]"}}), "more than names"),
    (raw({"__metadata__": {"trtpack.same": '{"a": 1}'}}), "more than names"),
    (raw({"__metadata__": {"trtpack.same": '{"a": "b"}'}}), "a cannot be the same as b"),
    (
        raw({"a": item("U8", [0], 0, 0), "__metadata__": {"trtpack.same": '{"a": "a"}'}}),
        "a cannot be the same as a",
    ),
]


@pytest.mark.parametrize(("data", "complaint"), MALFORMED)
def test_a_malformed_file_is_refused(data: memoryview, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint) as caught:
        parse(data, "some/file")
    assert caught.value.message.startswith("some/file: ")
    assert caught.value.hint


SOUND = file_bytes(view("a", "F32", 3), view("b", "BF16", 2, 2))


def test_a_truncated_file_is_refused() -> None:
    for length in range(len(SOUND)):
        with pytest.raises(BundleError):
            parse(memoryview(SOUND[:length]), "file")


@given(st.integers(0, len(SOUND) * 8 - 1))
@settings(max_examples=400)
def test_a_flipped_bit_is_refused_or_harmless(bit: int) -> None:
    data = bytearray(SOUND)
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = parse(memoryview(data), "file")
    except BundleError:
        return
    assert all(view.nbytes == math.prod(view.shape) * BITS[view.dtype] // 8
               for view in found.values())  # fmt: skip


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(BundleError):  # anything else escapes
        parse(memoryview(struct.pack("<Q", len(data)) + data), "file")


@pytest.mark.parametrize("name", ["__metadata__", "__padding__.0"])
def test_reserved_names_are_not_written(name: str) -> None:
    with pytest.raises(InternalError, match=name):
        Encoded([view(name, "U8", 1)])


def test_a_name_is_written_once() -> None:
    with pytest.raises(InternalError, match="'a'"):
        Encoded([view("a", "U8", 1), view("a", "U8", 1)])


def test_memory_of_another_size_is_not_written() -> None:
    wrong = TensorView("a", "F32", (2,), memoryview(bytes(4)))
    with pytest.raises(InternalError, match="has 4 bytes, its shape wants 8"):
        list(Encoded([wrong]).pieces())


@pytest.mark.parametrize("name", ["missing.safetensors", ".", "empty"])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(BundleError, match="cannot read"):
        open_safetensors(tmp_path / name)


class Full:
    """A tensor whose writing the disk refuses."""

    name, dtype, shape = "full", "U8", (4,)

    @property
    def buffer(self) -> Iterator[bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [view("a", "F32", 4)])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="no space left") as caught:
        write_safetensors(path, [view("a", "F32", 8), Full()])
    assert "free space" in caught.value.hint
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
