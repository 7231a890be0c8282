# SPDX-License-Identifier: Apache-2.0
"""Holds the tensors of a call against what the manifest says of the method's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import dims
from .dtypes import DTYPES
from .errors import InputMismatchError
from .manifest import TensorSpec

_TORCH = {name: getattr(torch, row.torch) for name, row in DTYPES.items()}


def check_inputs(
    wanted: Sequence[TensorSpec], given: Sequence[object], device: torch.device
) -> None:
    """Compares type, rank, sizes and device of every input.

    Raises:
        InputMismatchError: names the input and dimension, what was wanted and what was given.
    """
    if len(wanted) != len(given):
        raise InputMismatchError(
            f"wanted {len(wanted)} inputs ({', '.join(w.name for w in wanted)}), got {len(given)}",
            hint="see the inputs with trtpack inspect",
        )
    sizes = {w.name: tuple(g.shape) for w, g in zip(wanted, given, strict=True)
             if isinstance(g, torch.Tensor)}  # fmt: skip
    for spec, value in zip(wanted, given, strict=True):
        if not isinstance(value, torch.Tensor):
            raise InputMismatchError(
                f"input {spec.name}: wanted a tensor, got {type(value).__name__}",
                hint="convert it with torch.as_tensor",
            )
        _check_kind(spec, value, device)
        _check_sizes(spec, value, sizes)


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
    if value.dim() != len(spec.shape):
        raise InputMismatchError(
            f"input {spec.name}: wanted {len(spec.shape)} dimensions {_shape(spec)}, "
            f"got {value.dim()} {list(value.shape)}",
            hint="add or remove dimensions, such as the batch",
        )


def _check_sizes(spec: TensorSpec, value: torch.Tensor, sizes: dict[str, tuple[int, ...]]) -> None:
    for axis, (size, wanted) in enumerate(zip(value.shape, spec.shape, strict=True)):
        where = f"input {spec.name}: dimension {axis} is {size}, wanted"
        if isinstance(wanted, int):
            if size != wanted:
                raise InputMismatchError(
                    f"{where} {wanted}", hint=f"give {spec.name} the shape {_shape(spec)}"
                )
            continue
        if spec.min is not None and spec.max is not None:
            low, high = spec.min[axis], spec.max[axis]
            if not low <= size <= high:
                raise InputMismatchError(
                    f"{where} {low} to {high}",
                    hint=f"build the bundle with a range for {spec.name} that includes {size}",
                )
        if wanted is not None:
            same = dims.evaluate(wanted, lambda name, i: sizes[name][i])
            if same != size:
                raise InputMismatchError(
                    f"{where} {same}, which is {wanted}",
                    hint="make the sizes of the inputs agree",
                )


def _shape(spec: TensorSpec) -> str:
    parts = []
    for axis, size in enumerate(spec.shape):
        if isinstance(size, int):
            parts.append(str(size))
        elif spec.min is not None and spec.max is not None:
            parts.append(f"{spec.min[axis]}..{spec.max[axis]}")
        else:
            parts.append("any")
    return f"[{', '.join(parts)}]"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
