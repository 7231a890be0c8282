# SPDX-License-Identifier: Apache-2.0
"""A plan's parts in PyTorch run with the sizes of the call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.agreement import agreement
from trtpack.capture import capture
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.planning import plan
from trtpack.target import find_target


class Repeating(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x * 2).expand(y.shape[0] + 1, x.shape[1]).sin()


def test_sizes_that_pytorch_is_given_are_those_of_the_call() -> None:
    model, args = Repeating(), (torch.randn(1, 3), torch.randn(4, 2))
    shapes = {"x": None, "y": {0: torch.export.Dim("rows", min=2, max=9)}}
    lowered = lower(capture(model, args, dynamic_shapes=shapes))
    options = Options(("rtx-4090",), torch_ops=("aten.expand.default",))
    planned = plan(lowered, find_target("rtx-4090"), options)
    assert len(planned.converted) < len(planned.plan.segments)
    calls = [args, (torch.randn(1, 3), torch.randn(7, 2))]
    assert agreement(model, lowered, planned, calls)["rel_l2"] < 1e-5
