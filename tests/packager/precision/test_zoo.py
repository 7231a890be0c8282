# SPDX-License-Identifier: Apache-2.0
"""Models of the zoo in mixed precision: as near as a small type allows, and in as few segments."""

from __future__ import annotations

import pytest

from tests.packager.precision.models import request
from tests.zoo import MODELS
from tests.zoo.agreement import agreement
from trtpack.capture import capture
from trtpack.golden import tensors_of
from trtpack.livening import liven
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.planning import plan
from trtpack.target import find_target

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "most_casts"),
    [("resnet18", 2), ("espcn_superres", 2), ("hf_Bert", 60), ("dlrm", 6), ("sd_unet_block", 60)],
)
def test_the_evaluator_agrees_with_the_model(name: str, most_casts: int) -> None:
    model, args, _ = MODELS[name]()
    liven(model, args)
    captured = capture(model, args)
    asked = request(captured, tensors_of(args), "mixed")
    lowered = lower(captured, precision=asked)
    assert "fp16" in lowered.plan.counts
    assert lowered.plan.casts <= most_casts
    for target in ("rtx-4090", "orin@jetpack-6.0"):
        planned = plan(lowered, find_target(target), Options((target,)))
        assert [segment.kind for segment in planned.plan.segments] == ["tensorrt"]
        found = agreement(model, lowered, planned, [args])
        assert found["cosine"] > 0.999
        assert found["rel_l2"] > 1e-5, "nothing was rounded"
