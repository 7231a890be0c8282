# SPDX-License-Identifier: Apache-2.0
"""Whether answers are those a trial wants, and by how much they are not."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.proving.trial import Trial
from trtpack_runtime.dtypes import by_torch

T = torch.Tensor
_SHOWN = 4


def difference(trial: Trial, answers: Sequence[Sequence[T]]) -> str | None:
    """How a trial's answers, sample by sample, differ from what it wants; None where they agree.

    Whole numbers and truth values must be equal. TensorRT promises nothing where a floating-point
    answer is NaN, so it is not held to those; where it is infinite, TensorRT may stay finite beyond
    a quarter of the type's largest number, on the right side (8.6 writes 1e38 for infinity).
    """
    for number, (sample, given) in enumerate(zip(trial.samples, answers, strict=True)):
        for index, (want, have) in enumerate(zip(sample.answers, given, strict=True)):
            if want is not None and (found := _differs(trial, have.cpu(), want)):
                return f"sample {number}, output {index}: {found}"
    return None


def _differs(trial: Trial, have: T, want: T) -> str | None:
    if have.dtype != want.dtype or have.shape != want.shape:
        return f"wanted {_form(want)}, TensorRT answers {_form(have)}"
    name = by_torch(want.dtype).name
    if name == "FP8":  # few numbers, of which both must choose the same
        have, want = have.float(), want.float()
    exact = not want.is_floating_point()
    tolerance = 0.0 if exact or name == "FP8" else trial.tolerance[name]
    a, b = (t.double() if not exact else t.long() for t in (have, want))
    wrong = ~torch.isclose(a, b, rtol=tolerance, atol=tolerance)
    if not exact:
        wrong &= ~want.isnan() & ~_is_endless(a, want)
    count = int(wrong.sum())
    if not count:
        return None
    errors = (a[wrong].double() - b[wrong].double()).abs()
    relative = errors / b[wrong].double().abs()
    pairs = zip(a[wrong].tolist(), b[wrong].tolist(), strict=True)
    shown = ", ".join(f"{h:.7g} for {w:.7g}" for h, w in list(pairs)[:_SHOWN])
    return (
        f"{count} of {want.numel()} differ, by at most {errors.max():.3g} "
        f"(relative {relative.max():.3g}, allowed {tolerance:g}): {shown}"
    )


def _is_endless(have: T, want: T) -> T:
    """Where an infinite answer is met."""
    huge = torch.finfo(want.dtype).max / 4
    return want.isinf() & (have * want.sign() > huge)


def _form(tensor: T) -> str:
    return f"{by_torch(tensor.dtype).name}{list(tensor.shape)}"
