# SPDX-License-Identifier: Apache-2.0
"""Holds the tensors of a call against what the manifest says of the method's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .dtypes import DTYPES
from .errors import InputMismatchError
from .input_shapes import check_count, check_rank, check_sizes
from .manifest import TensorSpec

_TORCH = {name: getattr(torch, row.torch) for name, row in DTYPES.items()}


def check_inputs(
    wanted: Sequence[TensorSpec], given: Sequence[object], device: torch.device
) -> None:
    """Compares type, rank, sizes and device of every input.

    Raises:
        InputMismatchError: names the input and dimension, what was wanted and what was given.
    """
    check_count(wanted, len(given))
    sizes = {w.name: tuple(g.shape) for w, g in zip(wanted, given, strict=True)
             if isinstance(g, torch.Tensor)}  # fmt: skip
    for spec, value in zip(wanted, given, strict=True):
        if not isinstance(value, torch.Tensor):
            raise InputMismatchError(
                f"input {spec.name}: wanted a tensor, got {type(value).__name__}",
                hint="convert it with torch.as_tensor",
            )
        _check_kind(spec, value, device)
        check_sizes(spec, value.shape, sizes)


def _check_kind(spec: TensorSpec, value: torch.Tensor, device: torch.device) -> None:
    if value.dtype != _TORCH[spec.dtype]:
        raise InputMismatchError(
            f"input {spec.name}: wanted {_name(_TORCH[spec.dtype])}, got {_name(value.dtype)}",
            hint=f"convert it with {spec.name}.to({_TORCH[spec.dtype]})",
        )
    if value.device.type != device.type:
        raise InputMismatchError(
            f"input {spec.name}: it is on {value.device}, the bundle on {device}",
            hint=f"move it with {spec.name}.to({str(device)!r}), or the bundle with .to()",
        )
    check_rank(spec, value.shape)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
