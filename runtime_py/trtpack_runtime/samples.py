# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a run as tensors: of files, into files, and a classifier's best labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .dtypes import DTYPES, by_torch
from .errors import ConfigError
from .safetensors import open_safetensors, write_safetensors
from .sample_files import (
    IMAGE_SUFFIXES,
    Wanted,
    arrays_of,
    check_output_path,
    image_numbers,
    inputs_of_files,
    wanted_inputs,
    write_arrays,
)

if TYPE_CHECKING:
    import numpy

__all__ = [
    "IMAGE_SUFFIXES",
    "StoredTensor",
    "Wanted",
    "check_output_path",
    "read_image",
    "read_inputs",
    "read_tensors",
    "top_classes",
    "wanted_inputs",
    "write_outputs",
]


@dataclass(frozen=True)
class StoredTensor:
    """A torch tensor as ``write_safetensors`` takes it."""

    name: str
    value: torch.Tensor

    @property
    def dtype(self) -> str:
        """safetensors' name of the type."""
        return by_torch(self.value.dtype).safetensors

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.value.shape)

    @property
    def buffer(self) -> Any:
        """The tensor's bytes."""
        whole = self.value.detach().cpu().contiguous()
        flat = whole.as_strided((whole.numel(),), (1,))  # one expanded element has stride 0
        raw: Any = flat.view(torch.uint8).numpy()
        return memoryview(raw)


def read_inputs(
    arguments: Sequence[str], wanted: Sequence[Wanted], metadata: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The tensors that ``--input [NAME=]FILE`` arguments give, by input name; raises as
    ``sample_files.inputs_of_files``."""
    return inputs_of_files(arguments, wanted, metadata, read_tensors, _image)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors``, ``.npz`` or ``.npy`` file by name.

    Raises:
        ConfigError: another kind of file, or a broken one.
    """
    if path.suffix == ".safetensors":
        return {name: view.tensor() for name, view in open_safetensors(path).items()}
    arrays = arrays_of(path)
    try:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    except TypeError as error:
        raise ConfigError(
            f"cannot read {path}: {str(error).splitlines()[0]}",
            hint="write it with numpy.savez, numbers only",
        ) from error


def write_outputs(path: Path, outputs: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors by name to a ``.safetensors`` or ``.npz`` file, atomically.

    Raises:
        ConfigError: another suffix, a type that numpy lacks, or the disk refuses.
    """
    check_output_path(path)
    if path.suffix == ".safetensors":
        write_safetensors(path, [StoredTensor(name, value) for name, value in outputs.items()])
        return
    try:
        arrays = {name: value.detach().cpu().numpy() for name, value in outputs.items()}
    except TypeError as error:
        raise ConfigError(
            f"cannot write {path}: numpy has no such type, {error}",
            hint="write a .safetensors file instead",
        ) from error
    write_arrays(path, arrays)


def read_image(path: Path, wanted: Wanted, preprocess: Mapping[str, Any] | None) -> torch.Tensor:
    """An image as an input, batch of one; raises as ``sample_files.image_numbers``."""
    return _image(image_numbers(path, wanted, preprocess), wanted)


def top_classes(
    logits: torch.Tensor, labels: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """For each row of 2-D logits the most probable labels with their softmax probability."""
    probabilities = logits.detach().float().cpu().softmax(dim=-1)
    best = probabilities.topk(min(count, len(labels), logits.shape[-1]), dim=-1)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        [(labels[i], p) for p, i in zip(values, indices, strict=True) if i < len(labels)]
        for values, indices in rows
    ]


def _image(numbers: numpy.ndarray[Any, Any], wanted: Wanted) -> torch.Tensor:
    return torch.from_numpy(numbers).to(getattr(torch, DTYPES[wanted.dtype].torch))
