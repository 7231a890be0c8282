# SPDX-License-Identifier: Apache-2.0
"""What is proved: a small network, inputs, and the answers it must give."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tests.runtime.layer_cases import CASES, TOLERANCE, VARIANTS, Case
from trtpack_runtime.network import Network
from trtpack_runtime.reference import evaluate

T = torch.Tensor


@dataclass(frozen=True)
class Sample:
    """Inputs by name, and the network's outputs in order; None where any value will do."""

    inputs: Mapping[str, T]
    answers: Sequence[T | None]


@dataclass(frozen=True, eq=False)
class Trial:
    """One network with its stored tensors and samples.

    ``subject`` is what the table counts it under, ``group`` what may share an engine with it.
    ``tolerance`` is both the relative and the absolute one of floating-point answers.
    """

    name: str
    subject: str
    dtype: str
    group: str
    network: Network
    constants: Mapping[str, T]
    samples: tuple[Sample, ...]
    tolerance: Mapping[str, float]

    @property
    def digest(self) -> str:
        """Changes with anything that decides the result."""
        found = hashlib.sha256(self.network.to_bytes())
        tensors = [*self.constants.values()]
        for sample in self.samples:
            tensors += [*sample.inputs.values(), *(a for a in sample.answers if a is not None)]
        for tensor in tensors:
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found.update(repr(sorted(self.tolerance.items())).encode())
        return found.hexdigest()[:16]


def layer_trials() -> list[Trial]:
    """Every layer case in each of its types, static and, where it has open sizes, dynamic.

    What takes HALF takes BF16 too, where a TensorRT has it.
    """
    bfloats = [(case, "BF16") for case in CASES if {"FLOAT", "HALF"} <= set(case.dtypes)]
    return [
        _trial(case, dtype, dynamic)
        for case, dtype in (*VARIANTS, *bfloats)
        for dynamic in sorted({False, bool(case.dynamic)})
    ]


def _trial(case: Case, dtype: str, dynamic: bool) -> Trial:
    network = case.network(dtype, dynamic=dynamic)
    values = case.values(dtype)
    constants = {c.data: values[c.data] for c in network.constants.values()}
    names = [tensor.name for tensor in network.inputs]
    given = [{name: values[name] for name in names}]
    if dynamic:
        given.append({name: _doubled(values[name], case.dynamic.get(name, ())) for name in names})
    samples = tuple(Sample(i, evaluate(network, constants, i)) for i in given)
    tolerance = TOLERANCE[dtype if dtype in TOLERANCE else "FLOAT"]
    family = dtype if dtype in TOLERANCE else "whole"
    return Trial(
        f"{case} {dtype} {'dynamic' if dynamic else 'static'}",
        case.kind,
        dtype,
        f"{'dynamic' if dynamic else 'static'} {family}",
        network,
        constants,
        samples,
        dict.fromkeys(TOLERANCE, tolerance),
    )


def _doubled(value: T, axes: Sequence[int]) -> T:
    for axis in axes:
        value = torch.cat([value, value], axis)
    return value
