# SPDX-License-Identifier: Apache-2.0
"""Golden samples: does the loaded program compute what the original did?

Floating-point outputs are judged by relative L2 error, cosine similarity and largest absolute
error, each where the manifest gives a bound; integers and booleans by equality. A value that is not
finite has to be the same one in the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .beginnings import state_before
from .bundle import Bundle
from .errors import BundleError
from .manifest import Method
from .smoke_report import (
    DEFAULT_TOLERANCE,
    Comparison,
    Metrics,
    SmokeReport,
    Tolerance,
    broken_bound,
    ratio,
)
from .tf32 import full_float32

__all__ = [
    "DEFAULT_TOLERANCE",
    "Comparison",
    "Metrics",
    "Sample",
    "SmokeReport",
    "compare",
    "golden_samples",
    "judge",
    "replay",
]


@dataclass(frozen=True)
class Sample:
    """Golden tensors: inputs and wanted outputs in the method's order, end states by slot, and
    ``before`` the call the values of slots that do not begin with their first."""

    name: str
    inputs: tuple[torch.Tensor, ...]
    outputs: Mapping[str, torch.Tensor]
    states: Mapping[str, torch.Tensor]
    before: Mapping[str, torch.Tensor] = field(default_factory=dict)


Run = Callable[[Sample], tuple[Sequence[torch.Tensor], Mapping[str, torch.Tensor]]]
"""From the sample's own state: its inputs to outputs in order and end states by slot."""


def golden_samples(bundle: Bundle, method: Method, device: torch.device) -> list[Sample]:
    """The golden samples of a method, mapped.

    Raises:
        BundleError: a member lacks a tensor.
    """
    samples = []
    for golden in method.golden:
        views = bundle.tensors(golden.member)
        try:
            tensors = {
                n: views[n].tensor().to(device)
                for n in (*golden.inputs, *golden.outputs, *golden.states)
            }
        except KeyError as error:
            raise BundleError(
                f"{golden.member} has no tensor {error}", hint="build the bundle again"
            ) from error
        named = zip((o.name for o in method.outputs), golden.outputs, strict=True)
        before = state_before(bundle.manifest, golden, bundle.tensors)
        samples.append(
            Sample(
                golden.member.removeprefix("golden/").removesuffix(".safetensors"),
                tuple(tensors[n] for n in golden.inputs),
                {name: tensors[n] for name, n in named},
                {n.removeprefix("state."): tensors[n] for n in golden.states},
                {slot: view.tensor().to(device) for slot, view in before.items()},
            )
        )
    return samples


def replay(run: Run, samples: Sequence[Sample], tolerances: Mapping[str, Tolerance]) -> SmokeReport:
    """Runs every sample and judges every output and end state."""
    comparisons: list[Comparison] = []
    with torch.no_grad(), full_float32():
        for sample in samples:
            outputs, states = run(sample)
            pairs = [
                (name, got, want)
                for got, (name, want) in zip(outputs, sample.outputs.items(), strict=True)
            ]
            pairs += [(f"state {k}", states[k], want) for k, want in sample.states.items()]
            for name, got, want in pairs:
                bound = tolerances.get(name.removeprefix("state "))
                comparisons.append(judge(sample.name, name, got, want, bound))
    return SmokeReport(tuple(comparisons))


def judge(
    sample: str,
    output: str,
    got: torch.Tensor,
    want: torch.Tensor,
    tolerance: Tolerance | None = None,
) -> Comparison:
    """Compares one output with its golden value; the default tolerance is its dtype's."""
    dtype = str(want.dtype).removeprefix("torch.")
    if got.dtype != want.dtype or got.shape != want.shape:
        failure = f"wanted {_described(want)}, got {_described(got)}"
        return Comparison(sample, output, dtype, None, failure)
    metrics = compare(got, want)
    bounds = DEFAULT_TOLERANCE.get(dtype, {"equal": True}) if tolerance is None else tolerance
    return Comparison(sample, output, dtype, metrics, broken_bound(metrics, bounds))


def compare(got: torch.Tensor, want: torch.Tensor) -> Metrics:
    """The figures for two tensors, computed in float64.

    Where the data told another size, every element differs.
    """
    if got.shape != want.shape:
        count = max(want.numel(), 1)
        return Metrics(math.inf, math.inf, 0.0, count, count)
    got, want = got.detach().cpu(), want.detach().cpu()
    if want.is_complex():
        got, want = torch.view_as_real(got), torch.view_as_real(want)
    a, b = got.double().flatten(), want.double().flatten()
    same = (a == b) | (a.isnan() & b.isnan())
    differing = int((~same).sum())
    if not want.dtype.is_floating_point:  # float64 does not hold every int64
        differing = int((got != want).sum())
    finite = a.isfinite() & b.isfinite()
    if not bool((finite | same).all()):
        return Metrics(math.inf, math.inf, 0.0, differing, b.numel())
    a, b = a[finite], b[finite]
    error = a - b
    return Metrics(
        max_abs=float(error.abs().max()) if error.numel() else 0.0,
        rel_l2=ratio(float(error.norm()), float(b.norm())),
        cosine=_cosine(a, b),
        differing=differing,
        elements=same.numel(),
    )


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    if torch.equal(a, b):
        return 1.0
    norms = float(a.norm()) * float(b.norm())
    if norms == 0:
        return 0.0
    return max(-1.0, min(1.0, float(a @ b) / norms))


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
