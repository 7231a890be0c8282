# SPDX-License-Identifier: Apache-2.0
"""Outputs in memory that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from . import dims
from .call_plan import CallPlan, Step, Values
from .dtypes import DTYPES
from .engines._alike import Alike
from .errors import InputMismatchError
from .manifest import TensorSpec


class OutputCheck:
    """Holds the caller's outputs of one method against what its inputs make of them; what was right
    at the last call is right at a glance.

    Args:
        wanted: the method's outputs.
        inputs: its inputs' names.
        device: where the bundle runs.
    """

    def __init__(
        self, wanted: Sequence[TensorSpec], inputs: Sequence[str], device: torch.device
    ) -> None:
        self._wanted, self._inputs, self._device = wanted, inputs, device
        self._alike, self._learnt = Alike(), 0
        self._at: list[int] = []

    def again(self, inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> bool:
        """Whether inputs and outputs are those of the last call in all that is checked, memory and
        contiguity of the outputs too."""
        both = [*inputs, *out]
        if len(both) != self._learnt or not self._alike.check(*both):
            return False
        return [tensor.data_ptr() for tensor in both] == self._at

    def __call__(self, inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> bool:
        """Checks outputs for inputs that are right; whether all are contiguous.

        Raises:
            InputMismatchError: one of another type, shape or device, or in the memory of an input
                or of another output.
        """
        both = [*inputs, *out]
        is_contiguous = True
        if len(both) != self._learnt or not self._alike.check(*both):
            self._check(inputs, out)
            is_contiguous = all(tensor.is_contiguous() for tensor in out)
            if is_contiguous:
                self._alike.learn(both)
                self._learnt = len(both)
        taken = {tensor.untyped_storage().data_ptr() for tensor in inputs if tensor.numel()}
        for number, (spec, tensor) in enumerate(zip(self._wanted, out, strict=True), len(inputs)):
            memory = tensor.untyped_storage().data_ptr()
            if memory in taken and any(_overlap(tensor, other) for other in both[:number]):
                raise _mismatch(
                    f"output {spec.name}: it lies in the memory of an input or of another output"
                )
            taken.add(memory)
        if is_contiguous and self._alike.check(*both):
            self._at = [tensor.data_ptr() for tensor in both]
        return is_contiguous

    def _check(self, inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
        if len(out) != len(self._wanted):
            names = ", ".join(spec.name for spec in self._wanted)
            raise _mismatch(f"wanted {len(self._wanted)} outputs ({names}), got {len(out)}")
        shapes = {n: tuple(x.shape) for n, x in zip(self._inputs, inputs, strict=True)}
        for spec, tensor in zip(self._wanted, out, strict=True):
            _check_memory(spec.name, tensor)
            dtype = getattr(torch, DTYPES[spec.dtype].torch)
            if tensor.dtype != dtype or tensor.device != self._device:
                raise _mismatch(
                    f"output {spec.name}: wanted {dtype} on {self._device}, "
                    f"got {tensor.dtype} on {tensor.device}"
                )
            shape = [
                None if size is None else dims.evaluate(size, lambda n, axis: shapes[n][axis])
                for size in spec.shape
            ]
            check_shape(spec.name, shape, tensor)


def _check_memory(name: str, tensor: object) -> None:
    """InputMismatchError for what is no dense tensor with memory for each of its elements."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        raise _mismatch(f"output {name}: wanted a dense tensor, got {_kind(tensor)}")
    if any(size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        raise _mismatch(f"output {name}: elements of it share their memory")


def _kind(value: object) -> str:
    return str(value.layout) if isinstance(value, torch.Tensor) else type(value).__name__


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether memory of one, from its first to its last element, is the other's too."""
    (begin, end), (first, last) = _span(one), _span(other)
    return begin < last and first < end


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    begin = tensor.data_ptr()
    if not tensor.numel():
        return begin, begin
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    size = 1 + sum((size - 1) * step for size, step in steps)
    return begin, begin + size * tensor.element_size()


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
    for step in plan.steps:
        inputs = [values[slot] for slot in step.reads]
        room = _room(step, inputs, out) if step.answers else None
        if room is None:
            values += step.segment.run(inputs)
        else:
            runner: Any = step.segment.run
            runner.run_into(inputs, room)
            values += room
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
    step: Step, inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]
) -> list[torch.Tensor] | None:
    """The caller's memory for a segment's outputs, and new memory for those that stay within; None
    where the engine cannot write there."""
    runner: Any = step.segment.run
    if not hasattr(runner, "run_into"):
        return None
    given = [None if number is None else out[number] for number in step.wanted]
    room = [tensor for tensor in given if tensor is not None and tensor.is_contiguous()]
    if len(room) == step.count:
        return room
    dtypes = step.segment.dtypes
    if len(dtypes) != step.count:
        return None
    shapes = runner.output_shapes([tuple(tensor.shape) for tensor in inputs])
    room = []
    for shape, name, tensor in zip(shapes, dtypes, given, strict=True):
        if shape is None or (tensor is not None and not tensor.is_contiguous()):
            return None
        if tensor is None:
            dtype = getattr(torch, DTYPES[name].torch)
            tensor = torch.empty(shape, dtype=dtype, device=out[0].device)
        room.append(tensor)
    return room


def _mismatch(problem: str) -> InputMismatchError:
    return InputMismatchError(problem, hint="see the outputs with trtpack inspect")
