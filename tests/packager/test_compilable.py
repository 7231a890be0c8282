# SPDX-License-Identifier: Apache-2.0
"""Which operators keep a segment of PyTorch's from being compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtpack.capture import capture
from trtpack.compilable import why_eager


class Does(nn.Module):
    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.what = what
        self.lstm = nn.LSTM(4, 4, 2, dropout=0.5).eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(self.what(x))[0]
        return y


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x), None),
        (lambda x: F.rrelu(x, training=False), None),
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), "draws random numbers"),
        (lambda x: x + torch.rand_like(x), "draws random numbers"),
    ],
)
def test_only_what_draws_random_numbers_is_left_to_pytorch(
    what: Callable[[Tensor], Tensor], why: str | None
) -> None:
    found = why_eager(capture(Does(what), (torch.randn(2, 3, 4)[0][None],)).graph_module)
    assert found is None if why is None else found is not None and why in found
