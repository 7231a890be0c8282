# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a session as files, and a classifier's best labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..manifest import TensorSpec
from ..safetensors import open_safetensors, write_safetensors
from ..sample_files import (
    Wanted,
    arrays_of,
    check_output_path,
    image_numbers,
    inputs_of_files,
    write_arrays,
)
from .arrays import numpy_dtype, stored_array

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

__all__ = ["read_inputs", "read_image", "top_classes", "write_outputs"]


@dataclass(frozen=True)
class StoredArray:
    """An array of a type by our name, as ``write_safetensors`` takes it."""

    name: str
    kind: str
    value: Array

    @property
    def dtype(self) -> str:
        """safetensors' name of the type."""
        return DTYPES[self.kind].safetensors

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        shape: tuple[int, ...] = self.value.shape
        return shape

    @property
    def buffer(self) -> Any:
        """The array's bytes."""
        import numpy

        raw: Any = numpy.ascontiguousarray(self.value).reshape(-1).view(numpy.uint8)
        return memoryview(raw)


def read_inputs(
    arguments: Sequence[str], wanted: Sequence[Wanted], metadata: Mapping[str, Any]
) -> dict[str, Array]:
    """The arrays that ``--input [NAME=]FILE`` arguments give, by input name; raises as
    ``sample_files.inputs_of_files``."""
    return inputs_of_files(arguments, wanted, metadata, _read, _image)


def read_image(path: Path, wanted: Wanted, preprocess: Mapping[str, Any] | None) -> Array:
    """An image as an input, batch of one; raises as ``sample_files.image_numbers``."""
    return _image(image_numbers(path, wanted, preprocess), wanted)


def write_outputs(path: Path, outputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> None:
    """Writes outputs by name to a ``.safetensors`` or ``.npz`` file, atomically.

    Raises:
        ConfigError: another suffix, or the disk refuses.
    """
    check_output_path(path)
    if path.suffix == ".npz":
        write_arrays(path, outputs)
        return
    kinds = {spec.name: spec.dtype for spec in specs}
    write_safetensors(path, [StoredArray(n, kinds[n], array) for n, array in outputs.items()])


def top_classes(
    logits: Array, labels: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """For each row of 2-D logits the most probable labels with their softmax probability."""
    import numpy

    wide = logits.astype(numpy.float64)
    exp = numpy.exp(wide - wide.max(axis=-1, keepdims=True))
    probabilities = exp / exp.sum(axis=-1, keepdims=True)
    best = numpy.argsort(-probabilities, axis=-1, kind="stable")
    kept = min(count, len(labels), logits.shape[-1])
    return [
        [(labels[i], float(row[i])) for i in order[:kept] if i < len(labels)]
        for row, order in zip(probabilities, best, strict=True)
    ]


def _read(path: Path) -> dict[str, Array]:
    if path.suffix == ".safetensors":
        return {name: stored_array(view) for name, view in open_safetensors(path).items()}
    return arrays_of(path)


def _image(numbers: Array, wanted: Wanted) -> Array:
    if wanted.dtype == "BF16" and numpy_dtype("BF16").kind == "u":
        return _bits(numbers)
    return numbers.astype(numpy_dtype(wanted.dtype))


def _bits(numbers: Array) -> Array:
    """float32 rounded to the bits of a BF16, to even."""
    import numpy

    bits = numbers.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16)
