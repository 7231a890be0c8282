# SPDX-License-Identifier: Apache-2.0
"""Reads and writes safetensors files, mapped and without a copy.

The format is https://github.com/huggingface/safetensors#format. Files written here are read by any
other reader: the header is padded so that the data starts at a multiple of 64 bytes, and where a
tensor's size would leave the next one misaligned a ``U8`` tensor of zeros called ``__padding__.N``
fills the gap, since the format allows no holes. This reader leaves those out. The format allows no
overlap either: names of equal tensors that are stored once stand in the metadata, under
``trtpack.same``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from .atomic import cannot_write, replaced
from .errors import BundleError, InternalError
from .mapping import FilePart, mapped

if TYPE_CHECKING:
    import numpy
    import torch

ALIGNMENT = 64
"""Every tensor starts at a multiple of this, in bytes from the start of the file."""

BITS: Mapping[str, int] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "BOOL": 8, "I8": 8, "U8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
}  # fmt: skip
"""Bits of one element, for every type of the format."""

_PADDING = "__padding__."
_METADATA = "__metadata__"
_SAME = "trtpack.same"
_MAX_HEADER_BYTES = 100_000_000  # the limit of other readers
_NUMPY = {
    "BOOL": "bool", "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32",
    "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "F32": "float32",
    "F64": "float64", "C64": "complex64",
}  # fmt: skip


class TensorSource(Protocol):
    """A tensor to store. ``buffer`` is read once, when its turn comes, and held no longer."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str:
        """safetensors' name of the type, such as ``"F16"``."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def buffer(self) -> Any:
        """The bytes in row-major order: anything ``memoryview`` takes, contiguous."""


@dataclass(frozen=True)
class TensorView:
    """A stored tensor; ``buffer`` is its bytes, usually a part of a mapped file.

    ``same_as`` is the name of the tensor whose bytes it shares, where it has none of its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: memoryview = field(repr=False)
    same_as: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.buffer.nbytes

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """An array over the same memory; TypeError for types that numpy lacks, such as BF16."""
        import numpy

        if self.dtype not in _NUMPY:
            raise TypeError(f"numpy has no type for {self.dtype}")
        return numpy.frombuffer(self.buffer, dtype=_NUMPY[self.dtype]).reshape(self.shape)

    def tensor(self) -> torch.Tensor:
        """A CPU tensor over the same memory, a copy of memory that is read-only.

        Raises:
            KeyError: a type that no bundle has.
        """
        import torch

        from .dtypes import by_safetensors

        dtype = getattr(torch, by_safetensors(self.dtype).torch)
        if not self.nbytes:
            return torch.empty(self.shape, dtype=dtype)
        if self.buffer.readonly:  # torch warns of tensors over memory it must not write
            return torch.frombuffer(bytearray(self.buffer), dtype=dtype).reshape(self.shape)
        return torch.frombuffer(self.buffer, dtype=dtype).reshape(self.shape)


class Encoded:
    """A safetensors file yet to be written: ``size`` is known, the bytes come piece by piece.

    Nothing but the piece at hand is held; the tensors' memory is handed out as it is. ``same`` are
    further names of these tensors: name -> the tensor's own.
    """

    def __init__(
        self,
        tensors: Iterable[TensorSource],
        metadata: Mapping[str, str] | None = None,
        same: Mapping[str, str] | None = None,
    ) -> None:
        self._tensors = tuple(tensors)
        named = {_SAME: json.dumps(same, sort_keys=True, ensure_ascii=False)} if same else {}
        self._header = _header(self._tensors, {**(metadata or {}), **named})
        lost = {*(same or {}).values()} - {tensor.name for tensor in self._tensors}
        if lost:
            raise InternalError(f"there is no tensor {min(lost)} to be the same as")
        ends = sum(_aligned(_nbytes(t.dtype, t.shape)) for t in self._tensors)
        self.size = len(self._header) + ends

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The file's bytes in order."""
        yield self._header
        for tensor in self._tensors:
            wanted = _nbytes(tensor.dtype, tensor.shape)
            view = memoryview(tensor.buffer).cast("B") if wanted else memoryview(b"")
            if view.nbytes != wanted:
                raise InternalError(
                    f"tensor {tensor.name} has {view.nbytes} bytes, its shape wants {wanted}"
                )
            yield view
            yield bytes(_aligned(wanted) - wanted)


def write_safetensors(
    path: Path,
    tensors: Iterable[TensorSource],
    metadata: Mapping[str, str] | None = None,
    same: Mapping[str, str] | None = None,
) -> None:
    """Writes a file, atomically; ``same`` as ``Encoded`` has it.

    Raises:
        ConfigError: the disk refuses; what was at ``path`` is kept.
    """
    encoded = Encoded(tensors, metadata, same)
    try:
        with replaced(path) as file:
            for piece in encoded.pieces():
                file.write(piece)
    except OSError as error:
        raise cannot_write(path, error) from error


def open_safetensors(path: Path | FilePart) -> dict[str, TensorView]:
    """The tensors of a file, or a part of one, by name, in the order of their data, mapped.

    The memory is private: writing to a tensor changes neither the file nor other processes.

    Raises:
        BundleError: a file that cannot be read or that breaks the format.
    """
    name = path.path if isinstance(path, FilePart) else path
    try:
        data = mapped(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleError(f"cannot read {name}: {reason}", hint="check the path") from error
    return parse(data, str(name))


def parse(data: memoryview, where: str) -> dict[str, TensorView]:
    """The tensors of a file in memory by name, in the order of their data.

    ``where`` names the file in errors.

    Raises:
        BundleError: data that breaks the format anywhere.
    """
    header, start = _read_header(data, where)
    infos = []
    for name, item in header.items():
        if name == _METADATA:
            _check_metadata(item, where)
        else:
            infos.append((name, *_read_info(name, item, where)))
    infos.sort(key=lambda info: info[3:])
    views, position = {}, 0
    for name, dtype, shape, begin, end in infos:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a hole before"
            _refuse(where, f"tensor {name} {what}", wants=position, has=begin)
        wanted = _nbytes(dtype, shape)
        if end - begin != wanted:
            _refuse(where, f"tensor {name} has the wrong size", wants=wanted, has=end - begin)
        position = end
        if start + end > len(data):
            _refuse(where, f"ends inside tensor {name}", wants=start + end, has=len(data))
        if not name.startswith(_PADDING):
            views[name] = TensorView(name, dtype, shape, data[start + begin : start + end])
    if start + position != len(data):
        _refuse(where, "has bytes after its last tensor", wants=start + position, has=len(data))
    for name, own in _same(header, where).items():
        if own not in views or name in header:
            _refuse(where, f"tensor {name} cannot be the same as {own}")
        views[name] = replace(views[own], name=name, same_as=own)
    return views


def metadata(data: memoryview, where: str) -> dict[str, str]:
    """The free text stored in a file's header; BundleError as ``parse``."""
    found = _read_header(data, where)[0].get(_METADATA, {})
    _check_metadata(found, where)
    return dict(found)


def _same(header: Mapping[str, Any], where: str) -> dict[str, str]:
    """Further names of tensors: name -> the tensor's own."""
    try:
        found = json.loads(header.get(_METADATA, {}).get(_SAME, "{}"))
    except (ValueError, RecursionError) as error:
        _refuse(where, f"has a malformed {_SAME}: {error}", cause=error)
    if not isinstance(found, dict) or not all(isinstance(own, str) for own in found.values()):
        _refuse(where, f"has a {_SAME} that holds more than names")
    return found


def _aligned(size: int) -> int:
    return -size % ALIGNMENT + size


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = math.prod(shape) * BITS[dtype]
    return bits // 8 if bits % 8 == 0 else -1  # no tensor ends inside a byte


def _header(tensors: tuple[TensorSource, ...], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON, padded so that the data starts aligned."""
    items: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    position = paddings = 0
    for tensor in tensors:
        if tensor.name in items or tensor.name.startswith((_PADDING, _METADATA)):
            raise InternalError(f"cannot store a tensor called {tensor.name!r} here")
        size = _nbytes(tensor.dtype, tensor.shape)
        if size < 0:
            raise InternalError(f"tensor {tensor.name} ends inside a byte")
        items[tensor.name] = _info(tensor.dtype, tensor.shape, position, size)
        position += size
        if gap := _aligned(size) - size:
            items[f"{_PADDING}{paddings}"] = _info("U8", (gap,), position, gap)
            paddings += 1
            position += gap
    text = json.dumps(items, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > _MAX_HEADER_BYTES:
        raise InternalError(f"a safetensors header of {len(text)} bytes is too long")
    return struct.pack("<Q", len(text)) + text


def _info(dtype: str, shape: tuple[int, ...], begin: int, size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}


def _read_header(data: memoryview, where: str) -> tuple[dict[str, Any], int]:
    """The header's JSON and where the data starts."""
    if len(data) < 8:
        _refuse(where, "is too short", wants=8, has=len(data))
    (length,) = struct.unpack("<Q", data[:8])
    limit = min(len(data) - 8, _MAX_HEADER_BYTES)
    if length > limit:
        _refuse(where, "has a header longer than it can be", wants=f"at most {limit}", has=length)
    text = bytes(data[8 : 8 + length])
    if not text.startswith(b"{"):
        _refuse(where, "has no JSON header")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"has a malformed header: {error}", cause=error)
    return header, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands twice")
    return found


def _read_info(name: str, item: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    match item:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            pass
        case _:
            _refuse(where, f"tensor {name} lacks dtype, shape or data_offsets")
    if dtype not in BITS:
        _refuse(where, f"tensor {name} has the unknown type {dtype!r}")
    for number in (*shape, begin, end):
        if type(number) is not int or not 0 <= number < 1 << 63:
            _refuse(where, f"tensor {name} has {number!r} for a size or offset")
    if end < begin:
        _refuse(where, f"tensor {name} ends before it begins", wants=f">= {begin}", has=end)
    return dtype, tuple(shape), begin, end


def _check_metadata(item: Any, where: str) -> None:
    if not isinstance(item, dict) or not all(isinstance(v, str) for v in item.values()):
        _refuse(where, f"{_METADATA} holds more than strings")


def _refuse(
    where: str,
    what: str,
    *,
    wants: object = None,
    has: object = None,
    cause: Exception | None = None,
) -> NoReturn:
    compared = "" if wants is None else f", wants {wants}, has {has}"
    raise BundleError(
        f"{where}: {what}{compared}",
        hint="copy or download the file again, it is damaged",
        wants=wants,
        has=has,
    ) from cause
