# SPDX-License-Identifier: Apache-2.0
"""What is proved: a small network, inputs, and the answers it must give."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tests.proving.merging import merge
from tests.runtime.layer_cases import CASES, TOLERANCE, VARIANTS, Case, x
from trtpack_runtime.engines._weak import is_mixed
from trtpack_runtime.layers import KINDS
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

    What takes HALF takes BF16 too, where a TensorRT has it. Some cases in FLOAT stand beside a
    layer in HALF, where a TensorRT that is not strongly typed may round them to HALF too.
    """
    bfloats = [(case, "BF16") for case in CASES if {"FLOAT", "HALF"} <= set(case.dtypes)]
    alone = [
        _trial(case, dtype, dynamic)
        for case, dtype in (*VARIANTS, *bfloats)
        for dynamic in sorted({False, bool(case.dynamic)})
    ]
    ways = {
        (case.kind, *_choices(case)): case for case in reversed(CASES) if "FLOAT" in case.dtypes
    }
    return [*alone, *map(_beside_half, [*reversed(ways.values()), _BY_A_CONSTANT])]


_BY_A_CONSTANT = Case(
    "elementwise",
    {"input1": x(2, 3), "input2": x(2, 3, constant=True)},
    {"op": "PROD"},
    lambda input1, input2: input1 * input2,
    label="by a constant",
)
"""TensorRT 8.6 stores constants in HALF at times."""


def _choices(case: Case) -> tuple[str, ...]:
    return tuple(value for value in case.attributes.values() if isinstance(value, str))


def _beside_half(case: Case) -> Trial:
    """A case in FLOAT in a network that has a layer in HALF, so that 8.6 may use HALF in it."""
    root = Case("unary", {"input": x(4, low=0.5)}, {"op": "SQRT"}, lambda input: input.sqrt())
    parts = {"float": (case, "FLOAT"), "half": (root, "HALF")}
    network = merge({key: c.network(t, dynamic=False) for key, (c, t) in parts.items()})
    values = {
        f"{key}.{name}": value
        for key, (c, dtype) in parts.items()
        for name, value in c.values(dtype).items()
    }
    constants = {c.data: values[c.data] for c in network.constants.values()}
    inputs = {tensor.name: values[tensor.name] for tensor in network.inputs}
    sample = Sample(inputs, evaluate(network, constants, inputs))
    group = "static FLOAT beside HALF"
    name = f"{case} FLOAT beside HALF"
    return Trial(name, case.kind, "FLOAT", group, network, constants, (sample,), TOLERANCE)


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
    if family == "FLOAT" and is_mixed(network):
        family = "FLOAT beside HALF"  # it would let TensorRT 8.6 use HALF in the others too
    return Trial(
        f"{case} {dtype} {'dynamic' if dynamic else 'static'}",
        case.kind,
        dtype,
        f"{'dynamic' if dynamic else 'static'} {family}" + by_data(network),
        network,
        constants,
        samples,
        dict.fromkeys(TOLERANCE, tolerance),
    )


def by_data(network: Network) -> str:
    """What is added to the group of a network whose sizes the data tells: others do without."""
    sized = any(KINDS[layer.kind].sized_by_data for layer in network.layers)
    return " sized by data" * sized


def _doubled(value: T, axes: Sequence[int]) -> T:
    for axis in axes:
        value = torch.cat([value, value], axis)
    return value
