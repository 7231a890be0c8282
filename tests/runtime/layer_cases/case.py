# SPDX-License-Identifier: Apache-2.0
"""A layer as a network of its own, with the same computation written independently.

A case names operands by type and shape and gives the expected answer as a function of them.
Dims listed in ``dynamic`` are open in the dynamic variant of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim, dim
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

T = torch.Tensor
FLOATS = ("FLOAT", "HALF")
NUMBERS = ("FLOAT", "HALF", "INT32", "INT64")
TOLERANCE = {"FLOAT": 2e-5, "HALF": 4e-3, "BF16": 3e-2}


@dataclass(frozen=True)
class Operand:
    """An operand: ``dtype`` None is the case's own type; ``values`` instead of random numbers."""

    shape: tuple[int, ...]
    dtype: str | None = None
    values: tuple[Any, ...] | None = None
    low: float = -2.0
    high: float = 2.0
    constant: bool = False

    def sample(self, dtype: str, generator: torch.Generator) -> T:
        """A tensor of this operand's type and shape."""
        wanted = getattr(torch, DTYPES[self.dtype or dtype].torch)
        if self.dtype == "INT4" and self.values is not None:
            pairs = zip(self.values[::2], self.values[1::2], strict=True)
            return torch.tensor([low % 16 + high % 16 * 16 for low, high in pairs], dtype=wanted)
        if self.values is not None:
            return torch.tensor(self.values, dtype=wanted).reshape(self.shape)
        numbers = torch.rand(self.shape, generator=generator) * (self.high - self.low) + self.low
        if wanted == torch.bool:
            return numbers > (self.low + self.high) / 2
        return numbers.to(wanted)


@dataclass(frozen=True)
class Case:
    """One kind with operands and attributes; ``expected(**operands)`` is computed in float32."""

    kind: str
    operands: Mapping[str, Operand | tuple[Operand, ...]]
    attributes: Mapping[str, Any]
    expected: Callable[..., Any]
    dtypes: tuple[str, ...] = FLOATS
    dynamic: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    label: str = ""
    regions: Callable[[Recorder, Mapping[str, Any]], Mapping[str, Network]] | None = None
    """Records the layer's regions, given its operands."""

    def __str__(self) -> str:
        text = ",".join(str(v) for v in self.attributes.values() if isinstance(v, str))
        return "-".join(part for part in (self.kind, text, self.label) if part)

    def values(self, dtype: str) -> dict[str, T]:
        """Sample values by tensor name; several tensors are called ``name.0`` and so on."""
        generator = torch.Generator().manual_seed(7)
        return {name: operand.sample(dtype, generator) for name, operand in self._flat().items()}

    def answers(self, values: Mapping[str, T]) -> tuple[T, ...]:
        """What the layer must answer."""
        given: dict[str, Any] = {}
        for name, operand in self.operands.items():
            if isinstance(operand, Operand):
                given[name] = _wide(values[name])
            else:
                given[name] = [_wide(values[f"{name}.{i}"]) for i in range(len(operand))]
        answer = self.expected(**given)
        return answer if isinstance(answer, tuple) else (answer,)

    def network(self, dtype: str, *, dynamic: bool) -> Network:
        """The layer alone; operands are inputs, or constants where the case says so."""
        recorder, tensors = Recorder(), {}
        ranges: dict[str, Any] = {}
        for name, operand in self._flat().items():
            open_dims = self.dynamic.get(name, ()) if dynamic else ()
            shape: tuple[Dim, ...] = tuple(
                dim(name, axis) if axis in open_dims else size
                for axis, size in enumerate(operand.shape)
            )
            spelled = operand.dtype or dtype
            if operand.constant:
                tensors[name] = recorder.constant(spelled, operand.shape, name)
            else:
                tensors[name] = recorder.input(Tensor(name, spelled, shape))
                if open_dims:
                    ranges[name] = tuple(
                        tuple(
                            scale(s) if a in open_dims else s for a, s in enumerate(operand.shape)
                        )
                        for scale in (lambda s: s, lambda s: s, lambda s: s * 2)
                    )
        given = {
            name: tensors[name]
            if isinstance(operand, Operand)
            else tuple(tensors[f"{name}.{i}"] for i in range(len(operand)))
            for name, operand in self.operands.items()
        }
        attributes = self.attributes if dynamic else _static(self.attributes, self._flat())
        outputs = recorder.add(
            self.kind,
            given,
            attributes,
            name="y",
            origin="net.part (net.py:3)",
            regions=self.regions(recorder, given) if self.regions else None,
        )
        profiles = [Profile(ranges)] if ranges else []
        return recorder.finish([t.name for t in outputs], profiles)

    def _flat(self) -> dict[str, Operand]:
        flat: dict[str, Operand] = {}
        for name, operand in self.operands.items():
            if isinstance(operand, Operand):
                flat[name] = operand
            else:
                flat |= {f"{name}.{i}": part for i, part in enumerate(operand)}
        return flat


def _wide(value: T) -> T:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _static(value: Any, operands: Mapping[str, Operand]) -> Any:
    if isinstance(value, Mapping):
        return {k: _static(v, operands) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_static(v, operands) for v in value)
    if isinstance(value, dims.Expr):
        return dims.evaluate(value, lambda name, axis: operands[name].shape[axis])
    return value


def x(*shape: int, **more: Any) -> Operand:
    """An operand of the case's type."""
    return Operand(shape, **more)


def ints(shape: tuple[int, ...], *values: int, dtype: str = "INT32") -> Operand:
    """An operand of indices."""
    return Operand(shape, dtype, values)
