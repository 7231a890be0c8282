# SPDX-License-Identifier: Apache-2.0
"""Golden samples with numpy: what ``smoke.py`` does with torch, by the same figures and bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..beginnings import state_before
from ..bundle import Bundle
from ..dtypes import DTYPES, by_safetensors
from ..errors import BundleError
from ..manifest import Method
from ..safetensors import TensorView
from ..smoke_report import (
    DEFAULT_TOLERANCE,
    Comparison,
    Metrics,
    SmokeReport,
    Tolerance,
    broken_bound,
    ratio,
)
from .arrays import stored_array

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True)
class Value:
    """An array with our name of its type, which numpy's may not tell."""

    array: Array
    dtype: str


@dataclass(frozen=True)
class Sample:
    """Golden arrays: inputs and wanted outputs in the method's order, end states by slot, and
    ``before`` the call the values of slots that do not begin with their first."""

    name: str
    inputs: tuple[Array, ...]
    outputs: Mapping[str, Value]
    states: Mapping[str, Value]
    before: Mapping[str, Array] = field(default_factory=dict)


Run = Callable[[Sample], tuple[Mapping[str, Value], Mapping[str, Value]]]
"""From the sample's own state: its inputs to outputs and end states by name."""


def golden_samples(bundle: Bundle, method: Method) -> list[Sample]:
    """The golden samples of a method, mapped.

    Raises:
        BundleError: a member lacks a tensor.
    """
    samples = []
    for golden in method.golden:
        views = bundle.tensors(golden.member)
        for name in (*golden.inputs, *golden.outputs, *golden.states):
            if name not in views:
                raise BundleError(
                    f"{golden.member} has no tensor {name!r}", hint="build the bundle again"
                )
        named = zip((o.name for o in method.outputs), golden.outputs, strict=True)
        before = state_before(bundle.manifest, golden, bundle.tensors)
        samples.append(
            Sample(
                golden.member.removeprefix("golden/").removesuffix(".safetensors"),
                tuple(stored_array(views[n]) for n in golden.inputs),
                {name: _value(views[n]) for name, n in named},
                {n.removeprefix("state."): _value(views[n]) for n in golden.states},
                {slot: stored_array(view) for slot, view in before.items()},
            )
        )
    return samples


def replay(run: Run, samples: Sequence[Sample], tolerances: Mapping[str, Tolerance]) -> SmokeReport:
    """Runs every sample and judges every output and end state."""
    comparisons = []
    for sample in samples:
        outputs, states = run(sample)
        pairs = [(name, outputs[name], want) for name, want in sample.outputs.items()]
        pairs += [(f"state {k}", states[k], want) for k, want in sample.states.items()]
        for name, got, want in pairs:
            bound = tolerances.get(name.removeprefix("state "))
            comparisons.append(judge(sample.name, name, got, want, bound))
    return SmokeReport(tuple(comparisons))


def known(before: Mapping[str, Array], slots: Container[str]) -> dict[str, Array]:
    """Of the state that a sample begins with what a session has, which may run a few methods."""
    return {slot: value for slot, value in before.items() if slot in slots}


def judge(
    sample: str, output: str, got: Value, want: Value, tolerance: Tolerance | None = None
) -> Comparison:
    """Compares one output with its golden value; the default tolerance is its type's."""
    dtype = DTYPES[want.dtype].torch
    if got.dtype != want.dtype or got.array.shape != want.array.shape:
        failure = f"wanted {_described(want)}, got {_described(got)}"
        return Comparison(sample, output, dtype, None, failure)
    metrics = compare(got, want)
    bounds = DEFAULT_TOLERANCE.get(dtype, {"equal": True}) if tolerance is None else tolerance
    return Comparison(sample, output, dtype, metrics, broken_bound(metrics, bounds))


def compare(got: Value, want: Value) -> Metrics:
    """The figures for two arrays, computed in float64.

    Where the data told another size, every element differs.
    """
    import numpy

    if got.array.shape != want.array.shape:
        count = max(want.array.size, 1)
        return Metrics(math.inf, math.inf, 0.0, count, count)
    a, b = _wide(got), _wide(want)
    same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
    differing = int(numpy.count_nonzero(~same))
    if DTYPES[want.dtype].kind != "float":  # float64 does not hold every int64
        differing = int(numpy.count_nonzero(got.array != want.array))
    finite = numpy.isfinite(a) & numpy.isfinite(b)
    if not bool((finite | same).all()):
        return Metrics(math.inf, math.inf, 0.0, differing, b.size)
    a, b = a[finite], b[finite]
    error = a - b
    return Metrics(
        max_abs=float(numpy.abs(error).max()) if error.size else 0.0,
        rel_l2=ratio(float(numpy.linalg.norm(error)), float(numpy.linalg.norm(b))),
        cosine=_cosine(a, b),
        differing=differing,
        elements=same.size,
    )


def as_float(value: Value) -> Array:
    """The numbers in float32 or better, flat or not as they are; BF16 and FP8 from their bits."""
    import numpy

    array = value.array
    if value.dtype == "BF16":
        bits = numpy.ascontiguousarray(array).view(numpy.uint16)
        return (bits.astype(numpy.uint32) << 16).view(numpy.float32)
    if value.dtype == "FP8":
        return _of_fp8()[numpy.ascontiguousarray(array).view(numpy.uint8)]
    return array


def _wide(value: Value) -> Array:
    """All numbers in float64, a complex one as two."""
    import numpy

    array = numpy.ascontiguousarray(as_float(value)).reshape(-1)
    if value.dtype == "COMPLEX64":
        array = array.view(numpy.float32)
    return array.astype(numpy.float64)


def _of_fp8() -> Array:
    """The number of each pattern of 8 bits: 4 of exponent, 3 of mantissa, no infinity.

    Source: "FP8 Formats for Deep Learning" (Micikevicius et al., 2022), table 1, E4M3.
    """
    import numpy

    numbers = []
    for bits in range(256):
        exponent, mantissa = bits >> 3 & 15, bits & 7
        size = mantissa * 2.0**-9 if not exponent else (8 + mantissa) * 2.0 ** (exponent - 10)
        numbers.append(math.nan if bits & 127 == 127 else -size if bits >> 7 else size)
    return numpy.array(numbers, numpy.float32)


def _cosine(a: Array, b: Array) -> float:
    import numpy

    if numpy.array_equal(a, b):
        return 1.0
    norms = float(numpy.linalg.norm(a)) * float(numpy.linalg.norm(b))
    if norms == 0:
        return 0.0
    return max(-1.0, min(1.0, float(a @ b) / norms))


def _value(view: TensorView) -> Value:
    return Value(stored_array(view), by_safetensors(view.dtype).name)


def _described(value: Value) -> str:
    return f"{DTYPES[value.dtype].torch}{list(value.array.shape)}"
