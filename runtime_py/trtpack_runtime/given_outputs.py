# SPDX-License-Identifier: Apache-2.0
"""Outputs in memory that the caller gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import dims
from .call_plan import CallPlan, Step, Values
from .dtypes import DTYPES
from .errors import InputMismatchError
from .manifest import TensorSpec


def check_outputs(
    wanted: Sequence[TensorSpec],
    inputs: Mapping[str, torch.Tensor],
    out: Sequence[torch.Tensor],
    device: torch.device,
) -> None:
    """Holds the caller's outputs against what the inputs make of them.

    Raises:
        InputMismatchError: one of another type, shape or device, or in the memory of an input.
    """
    if len(out) != len(wanted):
        names = ", ".join(spec.name for spec in wanted)
        raise _mismatch(f"wanted {len(wanted)} outputs ({names}), got {len(out)}")
    taken = {tensor.untyped_storage().data_ptr() for tensor in inputs.values() if tensor.numel()}
    for spec, tensor in zip(wanted, out, strict=True):
        dtype = getattr(torch, DTYPES[spec.dtype].torch)
        if tensor.dtype != dtype or tensor.device != device:
            raise _mismatch(
                f"output {spec.name}: wanted {dtype} on {device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )
        shape = [
            None if size is None else dims.evaluate(size, lambda n, axis: inputs[n].shape[axis])
            for size in spec.shape
        ]
        check_shape(spec.name, shape, tensor)
        if tensor.numel() and tensor.untyped_storage().data_ptr() in taken:
            raise _mismatch(f"output {spec.name}: it lies in the memory of an input")


def check_shape(name: str, shape: Sequence[int | None], tensor: torch.Tensor) -> None:
    """InputMismatchError where the caller's output has another shape; None is any size."""
    fits = len(shape) == tensor.dim() and all(
        size in (None, have) for size, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        text = ", ".join("any" if size is None else str(size) for size in shape)
        raise _mismatch(f"output {name}: wanted the shape [{text}], got {list(tensor.shape)}")


def run_into(plan: CallPlan, values: Values, out: Sequence[torch.Tensor]) -> Values:
    """``CallPlan.run`` with the outputs in ``out``: engines write there where they can, what others
    answer is copied."""
    places: dict[int, torch.Tensor] = {}
    for slot, tensor in zip(plan.tensors, out, strict=True):
        places.setdefault(slot, tensor)
    for step in plan.steps:
        inputs = [values[slot] for slot in step.reads]
        wanted = [places.get(slot) for slot in range(step.first, step.first + step.count)]
        direct = _room(step, inputs, wanted) if any(w is not None for w in wanted) else None
        if direct is None:
            values += step.segment.run(inputs)
        else:
            runner: Any = step.segment.run
            runner.run_into(inputs, direct)
            values += direct
        for slot in step.done:
            values[slot] = None
    return values


def copy_out(tensors: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Copies outputs that are not where the caller wants them.

    Raises:
        InputMismatchError: one of another shape, which only the data told.
    """
    for number, (tensor, place) in enumerate(zip(tensors, out, strict=True)):
        if tensor is not place:
            check_shape(str(number), tuple(tensor.shape), place)
            place.copy_(tensor)


def _room(
    step: Step, inputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor | None]
) -> list[torch.Tensor] | None:
    """The caller's memory for a segment's outputs, and new memory for those that stay within; None
    where the engine cannot write there."""
    runner: Any = step.segment.run
    dtypes = step.segment.dtypes
    if not hasattr(runner, "run_into") or len(dtypes) != step.count:
        return None
    shapes = runner.output_shapes([tuple(tensor.shape) for tensor in inputs])
    room = []
    for shape, name, given in zip(shapes, dtypes, wanted, strict=True):
        dtype = getattr(torch, DTYPES[name].torch)
        if shape is None:
            return None
        if given is None:
            room.append(torch.empty(shape, dtype=dtype, device=_device(inputs, wanted)))
        elif tuple(given.shape) == tuple(shape) and given.dtype == dtype and given.is_contiguous():
            room.append(given)
        else:
            return None
    return room


def _device(inputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor | None]) -> torch.device:
    return next(tensor.device for tensor in (*wanted, *inputs) if tensor is not None)


def _mismatch(problem: str) -> InputMismatchError:
    return InputMismatchError(problem, hint="see the outputs with trtpack inspect")
