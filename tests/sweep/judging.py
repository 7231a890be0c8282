# SPDX-License-Identifier: Apache-2.0
"""Whether answers are PyTorch's.

Integers and truth values must be equal, and NaN and infinities stand in the same places. Other
numbers agree within the tolerance that the converter tests have for their type, or else are as good
as PyTorch's: seen from the same call in float64, their largest error is at most ``AS_GOOD`` times
the largest that eager PyTorch has itself. The second rule is for operators whose answers lose
digits whichever way they are computed, such as a product of many numbers in float16. Where eager
itself overflows and the number in float64 fits the type, that number is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.packager.converters.harness import TOLERANCES
from tests.sweep.samples import Sample

T = torch.Tensor
AS_GOOD = 4.0
UNINITIALISED = frozenset(
    {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
)
"""Operators whose answers hold any numbers."""


ANY_OF_EQUALS = frozenset({"argsort", "kthvalue", "median", "mode", "nanmedian", "sort", "topk"})
"""Operators whose indices among equal elements PyTorch leaves open."""


def difference(sample: Sample, have: Sequence[T], want: Sequence[T]) -> str | None:
    """How answers differ from eager PyTorch's, None where they are right."""
    truth: Sequence[T] | None = None
    for index, (a, b) in enumerate(zip(have, want, strict=True)):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"output {index}: wanted {_form(b)}, got {_form(a)}"
        if sample.operator in UNINITIALISED or _close(a, b):
            continue
        if sample.operator in ANY_OF_EQUALS and _point_at_equals(sample.tensors[0], a, b):
            continue
        if b.is_floating_point():
            truth = _truth(sample) if truth is None else truth
            if len(truth) == len(want) and _as_good(a, b, truth[index]):
                continue
        return f"output {index}: {_worst(a, b)}"
    return None


def _close(a: T, b: T) -> bool:
    if not b.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, equal_nan=True, **_tolerance(b))


def _point_at_equals(x: T, a: T, b: T) -> bool:
    """Whether indices along some dim of ``x`` differ only among equal elements, none twice."""
    if b.dtype != torch.int64 or bool(((a < 0) | (a >= max(x.numel(), 1))).any()):
        return False
    for dim in range(x.dim()):
        have, want = (t if t.dim() == x.dim() else t.unsqueeze(dim) for t in (a, b))
        others = [d for d in range(x.dim()) if d != dim]
        if have.dim() != x.dim() or any(have.shape[d] != x.shape[d] for d in others):
            continue
        if bool((have >= x.shape[dim]).any()) or bool((want >= x.shape[dim]).any()):
            continue
        ordered = have.sort(dim).values
        is_twice = bool((ordered.diff(dim=dim) == 0).any())
        if not is_twice and _close(x.gather(dim, have), x.gather(dim, want)):
            return True
    return False


def _truth(sample: Sample) -> list[T]:
    try:
        return sample.answers_in_float64()
    except (RuntimeError, TypeError, ValueError):  # PyTorch has not every operator in float64
        return []


def _as_good(a: T, b: T, truth: T) -> bool:
    if truth.shape != b.shape:
        return False
    fits = truth.to(b.dtype)
    overflown = b.isinf() & fits.isfinite()
    if not _close(a[overflown], fits[overflown]):
        return False
    a, b, truth = a[~overflown], b[~overflown], truth[~overflown]
    if not torch.equal(a.isfinite(), b.isfinite()):
        return False
    if not torch.equal(_not_finite(a), _not_finite(b)):
        return False
    finite = b.isfinite() & truth.isfinite()
    exact = truth[finite].double()
    ours, theirs = (
        (t[finite].double() - exact).abs().max() if len(exact) else torch.tensor(0.0)
        for t in (a, b)
    )
    return bool(ours <= AS_GOOD * theirs)


def _not_finite(tensor: T) -> T:
    return torch.nan_to_num(tensor[~tensor.isfinite()], nan=0.0, posinf=1.0, neginf=-1.0)


def _worst(a: T, b: T) -> str:
    if b.dtype == torch.bool:
        return f"{int((a != b).sum())} of {b.numel()} differ"
    wrong = ~torch.isclose(a, b, equal_nan=True, **_tolerance(b))
    pairs = list(zip(a[wrong].tolist(), b[wrong].tolist(), strict=True))
    shown = ", ".join(f"{have:.7g} for {want:.7g}" for have, want in pairs[:4])
    return f"{len(pairs)} of {b.numel()} differ: {shown}"


def _tolerance(tensor: T) -> dict[str, float]:
    exact = {"rtol": 0.0, "atol": 0.0}
    return TOLERANCES.get(tensor.dtype, exact)


def _form(tensor: T) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
