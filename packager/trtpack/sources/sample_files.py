# SPDX-License-Identifier: Apache-2.0
"""Reads real inputs from ``.safetensors``, ``.npz`` and ``.npy`` files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from trtpack_runtime.samples import read_tensors

from ..errors import ConfigError, SourceError
from ..inputs import SAMPLE_SUFFIXES
from ..options import DynamicDim, InputSpec, SampleFile

Sample = dict[str, Tensor]

_NUMBERED = re.compile(r"(\d+)\.(.+)")
_POSITION = re.compile(r"(?:arr_|input\.)(\d+)")  # numpy's and the bundle's names for a position


def read_samples(files: Sequence[SampleFile], inputs: Sequence[str]) -> list[Sample]:
    """Every sample in ``files``, each with the same inputs; ``inputs`` are forward's parameters.

    Names map to inputs; ``0.x``, ``1.x`` are samples 0 and 1 of input ``x``; a folder holds one or
    more samples a file, in the order of their names. Files given for single inputs are joined.

    Raises:
        ConfigError: a missing or unreadable file, or samples that do not have the same inputs.
    """
    whole: list[Sample] = []
    single: list[Sample] = []
    for file in files:
        found = _read(file, inputs)
        if file.name is None:
            whole += found
        elif single and len(single) != len(found):
            raise SourceError(
                f"{file.path} has {len(found)} samples of {file.name}, other files {len(single)}",
                hint="give as many samples of every input",
            )
        else:
            single = [{**a, **b} for a, b in zip(single or [{}] * len(found), found, strict=True)]
    if whole and single:
        raise SourceError(
            "samples are given both by name and as whole files", hint="use one of the two"
        )
    samples = whole or single
    for i, sample in enumerate(samples):
        if sample.keys() != samples[0].keys():
            raise SourceError(
                f"sample {i} has the inputs {', '.join(sample)}, "
                f"sample 0 has {', '.join(samples[0])}",
                hint="give every sample the same inputs",
            )
    return samples


def specs_of(sample: Mapping[str, Tensor]) -> tuple[InputSpec, ...]:
    """The static specs that describe a sample."""
    return tuple(
        InputSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for name, t in sample.items()
    )


def check_sample(index: int, name: str, value: Tensor, spec: InputSpec) -> None:
    """Refuses a sample tensor that does not fit the declared shape or kind of type.

    Raises:
        SourceError: which dimension or type is wrong, wanted and got.
    """
    got = tuple(value.shape)
    fits = len(got) == len(spec.shape) and all(
        d.range.minimum <= size <= d.range.maximum if isinstance(d, DynamicDim) else d == size
        for d, size in zip(spec.shape, got, strict=True)
    )
    if not fits:
        raise SourceError(
            f"sample {index} of input {name} has the shape {'x'.join(map(str, got))}, "
            f"wanted {'x'.join(map(str, spec.shape))}",
            hint="change the file or the --input that declares the shape",
        )
    wanted: torch.dtype = getattr(torch, spec.dtype or "float32")
    if wanted.is_floating_point != value.dtype.is_floating_point:
        raise SourceError(
            f"sample {index} of input {name} has the type "
            f"{str(value.dtype).removeprefix('torch.')}, wanted {spec.dtype}",
            hint="change the file or the --input that declares the type",
        )


def _read(file: SampleFile, inputs: Sequence[str]) -> list[Sample]:
    samples: list[Sample] = []
    for path in _paths(file.path):
        tensors = _tensors(path)
        if not tensors:
            raise SourceError(f"{path} holds no tensors", hint="save at least one input in it")
        numbered: dict[int, Sample] = {}
        for name, tensor in tensors.items():
            match = _NUMBERED.fullmatch(name)
            index, rest = (int(match[1]), match[2]) if match else (0, name)
            numbered.setdefault(index, {})[rest] = tensor
        for _, sample in sorted(numbered.items()):
            samples.append(_named(sample, file, path, inputs))
    return samples


def _tensors(path: Path) -> Sample:
    try:
        return read_tensors(path)
    except ConfigError as error:
        if "pickle" not in error.message:  # numpy's advice for whatever it does not know
            raise
        raise SourceError(
            f"cannot read {path}: it is damaged, or holds other things than numbers",
            hint=error.hint,
        ) from error


def _named(sample: Sample, file: SampleFile, path: Path, inputs: Sequence[str]) -> Sample:
    if file.name is not None:
        if file.name in sample:
            return {file.name: sample[file.name]}
        if len(sample) == 1:
            return {file.name: next(iter(sample.values()))}
        raise SourceError(
            f"{path} has no tensor {file.name!r}, it has {', '.join(sample)}",
            hint="rename the tensor, or give the file without a name",
        )
    named: Sample = {}
    for name, tensor in sample.items():
        position = _POSITION.fullmatch(name)
        if name not in inputs and position and int(position[1]) < len(inputs):
            named[inputs[int(position[1])]] = tensor
        elif name not in inputs and len(sample) == 1 and inputs:
            named[inputs[0]] = tensor
        else:
            named[name] = tensor
    return named


def sample_paths(folder: Path) -> list[Path]:
    """The sample files of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix in SAMPLE_SUFFIXES)


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        paths = sample_paths(path)
        if not paths:
            raise SourceError(
                f"folder {path} has no sample files",
                hint=f"put {' or '.join(SAMPLE_SUFFIXES)} files in it",
            )
        return paths
    if not path.exists():
        raise SourceError(f"there is no sample file {path}", hint="check the path after --input")
    return [path]
