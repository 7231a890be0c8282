# SPDX-License-Identifier: Apache-2.0
"""Small models, and the calls that the tests of ``torch.compile`` make."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

REFERENCE = {"engine": "reference"}


class Changing(nn.Module):
    """Counts its calls in a buffer, adds to an input in place, and answers views."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Any, ...]:
        self.calls.add_(1)
        h = torch.relu(self.fc(x)).transpose(0, 1)
        y.add_(1)
        return h, h.t(), x[1:], y, y[1:], x.shape[0], self.calls


def compiled(model: Any, dynamic: bool | None = None, **options: Any) -> Any:
    return torch.compile(
        model, backend="trtpack", options={**REFERENCE, **options}, dynamic=dynamic
    )


def same(answered: Any, wanted: Any) -> None:
    """Equal numbers, laid out in memory alike."""
    pairs = zip(pytree.tree_leaves(answered), pytree.tree_leaves(wanted), strict=True)
    for got, want in pairs:
        if isinstance(want, Tensor):
            torch.testing.assert_close(got, want)
            assert got.stride() == want.stride()
        else:
            assert got == want


def twins(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The model for inference, and a copy of it."""
    model = model.eval()
    return model, copy.deepcopy(model)
