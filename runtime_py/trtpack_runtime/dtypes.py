# SPDX-License-Identifier: Apache-2.0
"""One table of element types: TensorRT's name, safetensors' name, torch's name, bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "bool"]


@dataclass(frozen=True)
class DType:
    """An element type.

    ``name`` is TensorRT's enum name and the spelling used in every trtpack file; ``DOUBLE`` exists
    at program level only, since no TensorRT release computes in it. ``INT4`` exists within networks
    only, and is stored as bytes of two elements each, the first in the low bits.
    """

    name: str
    safetensors: str
    torch: str
    bits: int
    kind: Kind

    def nbytes(self, count: int) -> int:
        """Bytes that ``count`` elements take, rounded up for types smaller than a byte."""
        return (count * self.bits + 7) // 8


_TABLE = (
    DType("FLOAT", "F32", "float32", 32, "float"),
    DType("HALF", "F16", "float16", 16, "float"),
    DType("BF16", "BF16", "bfloat16", 16, "float"),
    DType("DOUBLE", "F64", "float64", 64, "float"),
    DType("FP8", "F8_E4M3", "float8_e4m3fn", 8, "float"),
    DType("INT8", "I8", "int8", 8, "int"),
    DType("INT4", "U8", "uint8", 4, "int"),
    DType("UINT8", "U8", "uint8", 8, "int"),
    DType("INT16", "I16", "int16", 16, "int"),
    DType("INT32", "I32", "int32", 32, "int"),
    DType("INT64", "I64", "int64", 64, "int"),
    DType("BOOL", "BOOL", "bool", 8, "bool"),
    DType("COMPLEX64", "C64", "complex64", 64, "float"),
)

DTYPES: dict[str, DType] = {row.name: row for row in _TABLE}
_WHOLE_BYTES = tuple(row for row in _TABLE if row.bits >= 8)
_BY_SAFETENSORS = {row.safetensors: row for row in _WHOLE_BYTES}
_BY_TORCH = {row.torch: row for row in _WHOLE_BYTES}

NETWORK_DTYPES = frozenset(DTYPES) - {"DOUBLE", "INT16", "COMPLEX64"}
"""The types a TensorRT network may contain."""


def by_safetensors(name: str) -> DType:
    """The row for a safetensors type such as ``"F16"``; KeyError if there is none."""
    return _BY_SAFETENSORS[name]


def by_torch(name: object) -> DType:
    """The row for ``torch.float16`` or a spelling of it; KeyError if there is none."""
    return _BY_TORCH[str(name).removeprefix("torch.")]
