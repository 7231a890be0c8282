# SPDX-License-Identifier: Apache-2.0
"""Places of elements that are not zero, in a number that only the data tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.packager.converters.harness import (
    TARGETS,
    Case,
    Checker,
    boolean,
    converted,
    dynamic,
    f32,
    given,
    i64,
    refusal,
)
from trtpack.converters.refusals import NO_LAYER_SIZED_BY_DATA

aten = torch.ops.aten
OPEN = dynamic(boolean(4, 5), {0: (1, 4, 9)})
NOTHING = given([[False, False], [False, False]], torch.bool)


def case(*args: Any, **kwargs: Any) -> Case:
    """A case that TensorRT-RTX has no layer for."""
    return Case(*args, **kwargs).not_on_rtx()


CASES = [
    case(aten.nonzero.default, boolean(7)),
    case(aten.nonzero.default, boolean(2, 3, 4)),
    case(aten.nonzero.default, OPEN),
    case(aten.nonzero.default, NOTHING),
    case(aten.nonzero.default, i64(4, 3, low=-1, high=2)),
    case(aten.nonzero.default, given([[0.0, -0.0, 1e-7], [float("nan"), 0.0, -3.0]])),
    case(aten.argwhere.default, boolean(3, 4)),
    case(aten.nonzero_static.default, boolean(3, 4), size=5),
    case(aten.nonzero_static.default, boolean(3, 4), size=20),
    case(aten.nonzero_static.default, OPEN, size=6, fill_value=7),
    case(aten.nonzero_static.default, NOTHING, size=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_number_has_no_places() -> None:
    assert "a number has no places" in str(refusal(aten.nonzero.default, f32(), target=TARGETS[1]))


def test_tensorrt_rtx_has_no_layer_for_it() -> None:
    assert refusal(aten.nonzero.default, boolean(3)) == NO_LAYER_SIZED_BY_DATA


def test_the_count_is_a_size_of_the_layers_own_output() -> None:
    network = converted(Case(aten.nonzero.default, OPEN), TARGETS[1]).network
    (layer,) = (layer for layer in network.layers if layer.kind == "non_zero")
    (place,) = layer.outputs
    assert str(network.tensors[network.outputs[0]].shape[0]) == f"{place}.1"
    assert network.outputs_by_data() == network.outputs
