# SPDX-License-Identifier: Apache-2.0
"""What quantization costs two models that are trained here: accuracy on images and sequences they
have not seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.packager.calibration.learning import (
    COUNT,
    Data,
    Sequences,
    Shapes,
    accuracy,
    images,
    sequences,
    trained,
)
from tests.packager.calibration.models import answer, captured_of
from trtpack.calibration.request import Quantization, Sample
from trtpack.lowering import lower
from trtpack.options import OBSERVER_NAMES, ObserverName
from trtpack.precision.plan import QUANTIZED, WEIGHTS_ONLY, Request
from trtpack.precision.running import named_inputs


def in_types(
    module: nn.Module,
    calibration: Tensor,
    precision: str,
    observer: ObserverName = "minmax",
    block: int | None = None,
) -> Callable[[Tensor], Tensor]:
    """The module as a build in this precision computes it."""
    captured = captured_of(module, (calibration[:COUNT],))

    def samples() -> list[Sample]:
        return [named_inputs(captured, (calibration,))]

    dtype, stored = QUANTIZED.get(precision), precision in WEIGHTS_ONLY
    asked = Quantization(dtype, observer, samples, block=block, stored=stored) if dtype else None
    request = Request(precision, samples=tuple(samples()))  # type: ignore[arg-type]  # a name
    lowered = lower(captured, precision=request, quantization=asked)
    return lambda inputs: answer(lowered, (inputs,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "data", "rate"),
    [(Shapes, images, 2e-3), (Sequences, sequences, 1e-3)],
    ids=["convolutions", "transformer"],
)
def test_accuracy_by_precision(
    make: Callable[[], nn.Module], data: Callable[[int], Data], rate: float
) -> None:
    torch.manual_seed(0)
    module = trained(make(), data(0), rate)
    calibration, held_out = data(1)[0], data(2)
    found = {"fp32": accuracy(module, held_out)}
    found["fp16"] = accuracy(in_types(module, calibration, "mixed"), held_out)
    for observer in OBSERVER_NAMES:
        quantized = in_types(module, calibration, "int8", observer)
        found[f"int8, {observer}"] = accuracy(quantized, held_out)
    few: dict[str, tuple[str, int | None]] = {
        "int8 weights": ("int8-weights", None),
        "int8 weights, blocks of 16": ("int8-weights", 16),
        "int4 weights": ("int4", 16),
    }
    inputs, wanted, lost = held_out[0], module(held_out[0]), {}
    for name, (precision, block) in few.items():
        run = in_types(module, calibration, precision, block=block)
        found[name] = accuracy(run, held_out)
        lost[name] = float((run(inputs) - wanted).norm() / wanted.norm())
    print("\n" + "\n".join(f"{name:26} rel. L2 {value:.2e}" for name, value in lost.items()))
    print("\n" + "\n".join(f"{name:26} {value:6.2f} %" for name, value in found.items()))
    assert 80 < found["fp32"] < 100, "hard enough to lose something, and learnt"
    assert abs(found["fp16"] - found["fp32"]) <= 0.2
    for observer in OBSERVER_NAMES:
        assert found[f"int8, {observer}"] >= found["fp32"] - 1, observer
    assert found["int8 weights"] >= found["fp32"] - 0.5
    assert found["int8 weights, blocks of 16"] >= found["fp32"] - 0.5
    assert lost["int8 weights, blocks of 16"] < lost["int8 weights"]
    assert found["int4 weights"] >= found["fp32"] - 2
