# SPDX-License-Identifier: Apache-2.0
"""What a test row says: an operator call, its tensors, and which of their sizes vary."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

MIN, OPT, MAX = range(3)
Range = tuple[int, int, int]
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Input:
    """A tensor argument: random numbers in ``low`` to ``high``, or ``values``.

    ``ranges`` gives (min, opt, max) of dynamic dims. ``constant`` ones are parameters.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: float = -3
    high: float = 3
    ranges: Mapping[int, Range] = field(default_factory=dict)
    values: tuple[Any, ...] | None = None
    constant: bool = False

    def __str__(self) -> str:
        sizes = [
            "..".join(map(str, self.ranges[d])) if d in self.ranges else str(size)
            for d, size in enumerate(self.shape)
        ]
        name = str(self.dtype).removeprefix("torch.")
        return ("weight " if self.constant else "") + f"{name}[{'x'.join(sizes)}]"

    def sample(self, which: int, generator: torch.Generator) -> torch.Tensor:
        """A tensor of the smallest, usual or largest shape."""
        if self.values is not None:
            return torch.tensor(self.values, dtype=self.dtype).reshape(self.shape)
        shape = [self.ranges[d][which] if d in self.ranges else s for d, s in enumerate(self.shape)]
        if self.dtype == torch.bool:
            return torch.rand(shape, generator=generator) > 0.5
        numbers = torch.rand(shape, generator=generator) * (self.high - self.low) + self.low
        return (numbers if self.dtype.is_floating_point else numbers.floor()).to(self.dtype)

    def fake(self, mode: FakeTensorMode, generator: torch.Generator) -> torch.Tensor:
        """The same as metadata; dynamic dims with the same usual size share a symbol."""
        kinds = [
            DimDynamic.DUCK if d in self.ranges else DimDynamic.STATIC
            for d in range(len(self.shape))
        ]
        context = StatelessSymbolicContext(dynamic_sizes=kinds)
        return mode.from_tensor(self.sample(OPT, generator), symbolic_context=context)


def f32(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A float32 tensor; float16 in the second run of a case."""
    return Input(torch.float32, shape, low, high)


def f16(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A float16 tensor."""
    return Input(torch.float16, shape, low, high)


def bf16(*shape: int, low: float = -3, high: float = 3) -> Input:
    """A bfloat16 tensor."""
    return Input(torch.bfloat16, shape, low, high)


def i64(*shape: int, low: int = -5, high: int = 6) -> Input:
    """An int64 tensor of numbers from ``low`` up to, not including, ``high``."""
    return Input(torch.int64, shape, low, high)


def i32(*shape: int, low: int = -5, high: int = 6) -> Input:
    """An int32 tensor of numbers from ``low`` up to, not including, ``high``."""
    return Input(torch.int32, shape, low, high)


def boolean(*shape: int) -> Input:
    """A tensor of random truth values."""
    return Input(torch.bool, shape)


def given(values: Sequence[Any], dtype: torch.dtype = torch.float32) -> Input:
    """A tensor of exactly these numbers; nested lists make more dims."""
    tensor = torch.tensor(values, dtype=dtype)
    return Input(dtype, tuple(tensor.shape), values=tuple(tensor.flatten().tolist()))


def dynamic(tensor: Input, ranges: Mapping[int, Range]) -> Input:
    """``tensor`` with dims that vary; its own size there is the usual one."""
    shape = tuple(ranges[d][OPT] if d in ranges else s for d, s in enumerate(tensor.shape))
    return dataclasses.replace(tensor, ranges=ranges, shape=shape)


def weight(tensor: Input) -> Input:
    """``tensor`` as a parameter of the model, so that its value is known while converting."""
    return dataclasses.replace(tensor, constant=True)


@dataclass(frozen=True)
class SizeOf:
    """A size argument computed from the tensors' shapes."""

    text: str
    of: Callable[[Sequence[torch.Tensor]], Any]

    def __str__(self) -> str:
        return self.text


def size(tensor: int, dim: int, then: Callable[[Any], Any] = lambda s: s) -> SizeOf:
    """A size argument: ``then(size)`` of the ``tensor``-th tensor along ``dim``."""
    return SizeOf(f"size({tensor}, {dim})", lambda tensors: then(tensors[tensor].shape[dim]))


class Case:
    """A call of ``op``; tensors are ``Input``, sizes may be ``SizeOf``."""

    def __init__(self, op: OpOverload, *args: Any, **kwargs: Any) -> None:
        self.op, self.args, self.kwargs = op, args, kwargs
        self.half, self.has_values, self.on_rtx = True, True, True
        self.widened = False
        self.outputs: tuple[int, ...] | None = None
        self.others: tuple[Input, ...] = ()

    def float32_only(self, reason: str) -> Case:
        """Leaves out the float16 run, for a reason."""
        assert reason
        self.half = False
        return self

    def exact(self, reason: str) -> Case:
        """Wants in float16 what PyTorch answers in float32, rounded once, for a reason."""
        assert reason
        self.widened = True
        return self

    def beside(self, *inputs: Input) -> Case:
        """Gives the graph further inputs, which only sizes are taken from."""
        self.others = inputs
        return self

    def with_any_values(self) -> Case:
        """Compares types and shapes only, as of an uninitialised tensor."""
        self.has_values = False
        return self

    def not_on_rtx(self) -> Case:
        """Expects TensorRT-RTX to lack a layer for it."""
        self.on_rtx = False
        return self

    def answering(self, *outputs: int) -> Case:
        """Compares only these outputs; the others serve training."""
        self.outputs = outputs
        return self

    def __str__(self) -> str:
        words = [_text(a) for a in self.args]
        words += [f"{k}={_text(v)}" for k, v in self.kwargs.items()]
        words += [f"beside {other}" for other in self.others]
        return f"{self.op}({', '.join(words)})"

    def inputs(self) -> list[Input]:
        """The tensor arguments in order."""
        found: list[Input] = []
        walk((self.args, self.kwargs), lambda i: found.append(i) or i, lambda s: s)
        return [*found, *self.others]

    def in_type(self, dtype: torch.dtype) -> Case:
        """The same call with tensors of ``dtype`` in place of float32 ones."""

        def other(tensor: Input) -> Input:
            is_float = tensor.dtype == torch.float32
            return dataclasses.replace(tensor, dtype=dtype) if is_float else tensor

        case = self._with(other)
        case.others = self.others
        return case

    def openings(self) -> Iterator[Case]:
        """The same call with one more open size: each size that PyTorch takes twice as large.

        Equal sizes are opened together. A parameter's sizes, and tensors of given numbers, stay.
        """
        inputs = [i for i in self.inputs() if i.values is None]
        kept = {n for i in inputs for n in (i.shape if i.constant else _usual_sizes(i))}
        for size in sorted({n for i in inputs for n in i.shape} - kept - {0, 1}):
            case = self._with(lambda tensor, size=size: _opened(tensor, size))
            if case._is_taken(MAX):
                yield case

    def _with(self, change: Callable[[Input], Input]) -> Case:
        """The same call of changed tensors."""
        args, kwargs = walk((self.args, self.kwargs), change, lambda s: s)
        case = copy.copy(self)
        case.args, case.kwargs, case.others = args, kwargs, tuple(map(change, self.others))
        return case

    def _is_taken(self, which: int) -> bool:
        try:
            self.call(self.samples(which))
        except (RuntimeError, IndexError, ValueError):
            return False
        return True

    def call(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Eager PyTorch's answers, flat."""
        narrow = next((t.dtype for t in tensors if t.dtype in _HALVES), None)
        if self.widened and narrow is not None:
            answers = self.call([t.float() if t.dtype in _HALVES else t for t in tensors])
            return [a.to(narrow) if a.is_floating_point() else a for a in answers]
        remaining = iter(tensors)
        args, kwargs = walk(
            (self.args, self.kwargs), lambda _: next(remaining), lambda s: s.of(tensors)
        )
        with torch.compiler.set_stance("force_eager"):  # torchvision would compile its kernels
            result = self.op(*args, **kwargs)
        return [value for _, value in self.wanted(result)]

    def wanted(self, result: Any) -> list[tuple[int, torch.Tensor]]:
        """The tensors to compare among the operator's results, with their positions."""
        results = [result] if isinstance(result, torch.Tensor) else result
        chosen = range(len(results)) if self.outputs is None else self.outputs
        return [(i, results[i]) for i in chosen if isinstance(results[i], torch.Tensor)]

    def samples(self, which: int) -> list[torch.Tensor]:
        """One tensor for each input; parameters are the same for every ``which``."""
        seed = zlib.crc32(str(self).encode())
        varying, fixed = (torch.Generator().manual_seed(seed + i) for i in (which, 99))
        return [i.sample(which, fixed if i.constant else varying) for i in self.inputs()]


def walk(value: Any, tensor: Callable[[Input], Any], sized: Callable[[SizeOf], Any]) -> Any:
    if isinstance(value, Input):
        return tensor(value)
    if isinstance(value, SizeOf):
        return sized(value)
    if isinstance(value, tuple | list):
        return type(value)(walk(v, tensor, sized) for v in value)
    if isinstance(value, dict):
        return {k: walk(v, tensor, sized) for k, v in value.items()}
    return value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value).removeprefix("torch.")


def _usual_sizes(tensor: Input) -> list[int]:
    """The usual sizes of the dims that vary."""
    return [tensor.shape[d] for d in tensor.ranges]


def _opened(tensor: Input, size: int) -> Input:
    """``tensor`` with its dims of this size open."""
    if tensor.constant or tensor.values is not None:
        return tensor
    found = {d: (size, size, 2 * size) for d, n in enumerate(tensor.shape) if n == size}
    return dynamic(tensor, {**tensor.ranges, **found}) if found else tensor
