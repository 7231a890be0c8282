# SPDX-License-Identifier: Apache-2.0
"""What fake quantizers divide out for a batch norm is left out with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from .models import lowered


class Trained(nn.Module):
    """A convolution as ``ConvBn2d`` has it: weights scaled, rounded, and the scale divided out."""

    def __init__(self, *, bias: bool = True, other: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        self.weight = nn.Parameter(torch.randn(4, 2, 3, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator)) if bias else None
        self.norm, self.other = nn.BatchNorm2d(4), other
        for tensor in (*self.norm.parameters(), self.norm.running_mean, self.norm.running_var):
            tensor.data.copy_(torch.rand(4, generator=generator) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.sqrt(self.norm.running_var + (self.norm.eps + self.other))
        scale = self.norm.weight / deviation
        kernel = self.weight * scale.reshape(-1, 1, 1, 1)
        kernel = torch.fake_quantize_per_tensor_affine(kernel, 0.03, 0, -128, 127)
        x = nn.functional.conv2d(x, kernel) / scale.reshape(1, -1, 1, 1)
        return self.norm(x if self.bias is None else x + self.bias.reshape(1, -1, 1, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_and_a_bias_are_left(bias: bool) -> None:
    result = lowered(Trained(bias=bias), torch.randn(1, 2, 6, 6))
    assert result.effects["cancel_norm_scales"] == 1
    assert result.layers == {"dequantize": 1, "convolution_nd": 1}


def test_another_scale_than_the_batch_norms_own_is_kept() -> None:
    result = lowered(Trained(other=0.5), torch.randn(1, 2, 6, 6))
    assert result.effects["cancel_norm_scales"] == 0


def test_a_result_that_others_read_too_is_kept() -> None:
    class Both(Trained):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
            y = nn.functional.conv2d(x, self.weight) / scale.reshape(1, -1, 1, 1)
            return self.norm(y), y

    result = lowered(Both(), torch.randn(1, 2, 6, 6))
    assert result.effects["cancel_norm_scales"] == 0
