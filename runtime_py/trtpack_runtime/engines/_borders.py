# SPDX-License-Identifier: Apache-2.0
"""What a caller gives to an engine and gets from it: types, places, and what is refused.

64-bit integers are those of the caller: TensorRT 8 has none, so an engine of it takes and answers
32-bit ones, and what does not fit into these is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.errors import InputMismatchError

from ._plans import Plan
from ._range_check import RangeCheck

T = torch.Tensor


class Borders:
    """An engine's inputs and outputs in the caller's order.

    ``held`` are the types of the engine's inputs, ``wanted`` those the caller gives, ``answered``
    those the caller gets; ``narrowed`` and ``widened`` are the numbers of the inputs and outputs
    where the engine's differ. ``known`` are the outputs whose sizes do not depend on the data,
    ``by_data`` the others; ``index`` is the device's number.
    """

    def __init__(
        self,
        engine: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        declared: Mapping[str, str],
        by_data: Collection[str],
        device: torch.device,
        index: int,
    ) -> None:
        """``declared`` are the types the caller uses; INT64 stands for INT32 where the engine has
        that. ``index`` is the device's number."""
        types = {name: engine.get_tensor_dtype(name).name for name in (*inputs, *outputs)}
        narrow = {n for n, have in types.items() if have == "INT32" and declared.get(n) == "INT64"}
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.known = tuple(name for name in outputs if name not in by_data)
        self.by_data = tuple(name for name in outputs if name in by_data)
        self.dtypes = {name: getattr(torch, DTYPES[have].torch) for name, have in types.items()}
        self.held = tuple(self.dtypes[name] for name in inputs)
        self.wanted = tuple(torch.int64 if n in narrow else self.dtypes[n] for n in inputs)
        self.answered = tuple(torch.int64 if n in narrow else self.dtypes[n] for n in outputs)
        self.narrowed = tuple(i for i, name in enumerate(inputs) if name in narrow)
        self.widened = frozenset(i for i, name in enumerate(outputs) if name in narrow)
        self._device, self.index = device, index

    @property
    def plain(self) -> bool:
        """Whether the engine's types and sizes are the caller's."""
        return not (self.narrowed or self.widened or self.by_data)

    def ready(self, inputs: Sequence[T]) -> list[T]:
        """The inputs contiguous, once they are of the right type and on the device.

        Raises:
            InputMismatchError: they are not.
        """
        if len(inputs) != len(self.inputs):
            raise InputMismatchError(
                f"the engine takes {len(self.inputs)} inputs, got {len(inputs)}",
                hint=f"give {', '.join(self.inputs)}",
            )
        for name, tensor, dtype in zip(self.inputs, inputs, self.wanted, strict=True):
            if tensor.dtype is not dtype or tensor.get_device() != self.index:
                raise InputMismatchError(
                    f"input {name}: wanted {_spelled(dtype)} on {self._device}, "
                    f"got {_spelled(tensor.dtype)} on {tensor.device}",
                    hint="convert the input before the call",
                )
        return [tensor.contiguous() for tensor in inputs]

    def narrow(self, given: Sequence[T]) -> list[T]:
        """What ``ready`` answered, in the engine's types."""
        return [tensor.to(dtype) for tensor, dtype in zip(given, self.held, strict=True)]

    def range_check(self, given: Sequence[T], held: Mapping[int, T]) -> RangeCheck:
        """Begins to check that 64-bit integers are the 32-bit ones the engine gets, by number."""
        return RangeCheck({self.inputs[i]: (given[i], held[i]) for i in self.narrowed})

    def widen(self, results: Sequence[T], outputs: Sequence[T] | None) -> list[T]:
        """Results in the types the caller wants, in their ``outputs`` where they gave those."""
        if outputs is None:
            return [r.long() if i in self.widened else r for i, r in enumerate(results)]
        for output, result in zip(outputs, results, strict=True):
            output.copy_(result)
        return list(outputs)

    def check_outputs(self, plan: Plan, outputs: Sequence[T]) -> None:
        """Holds the caller's outputs against what the engine writes.

        Raises:
            InputMismatchError: an output has another shape, type or device, is not contiguous, or
                its size depends on the data.
        """
        if self.by_data:
            raise InputMismatchError(
                f"output {self.by_data[0]}: its size depends on the data, no memory can be given",
                hint="call it without outputs of your own",
            )
        if len(outputs) != len(self.outputs):
            raise InputMismatchError(
                f"the engine has {len(self.outputs)} outputs, got {len(outputs)}",
                hint=f"give {', '.join(self.outputs)}",
            )
        planned = zip(outputs, self.answered, plan.outputs, strict=True)
        for i, (tensor, dtype, (shape, _, _)) in enumerate(planned):
            if (
                tensor.shape != shape
                or tensor.dtype is not dtype
                or tensor.get_device() != self.index
                or not tensor.is_contiguous()
            ):
                raise self._not_so(i, tensor, shape)

    def _not_so(self, i: int, tensor: T, shape: Sequence[int]) -> InputMismatchError:
        strided = "" if tensor.is_contiguous() else ", not contiguous"
        return InputMismatchError(
            f"output {self.outputs[i]}: wanted {_spelled(self.answered[i])} {list(shape)} on "
            f"{self._device}, got {_spelled(tensor.dtype)} {list(tensor.shape)} on "
            f"{tensor.device}{strided}",
            hint="give contiguous outputs of the shapes that output_shapes tells",
        )


def _spelled(dtype: torch.dtype) -> str:
    """A type by TensorRT's name, where it has one."""
    try:
        return by_torch(dtype).name
    except KeyError:
        return str(dtype).removeprefix("torch.")
