# SPDX-License-Identifier: Apache-2.0
"""Models with PyTorch's fake quantizers, to be trained with them."""

from __future__ import annotations

import copy

import torch
import torch.ao.quantization as ao
from torch import nn

SYMMETRIC = ao.QConfig(
    activation=ao.FakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    ),
    weight=ao.default_per_channel_weight_fake_quant,
)


def prepared(model: nn.Module, config: ao.QConfig = SYMMETRIC) -> nn.Module:
    """A copy to be trained, in which fake quantizers stand where ``config`` has them."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    model.qconfig = config
    ao.prepare_qat(model, inplace=True)
    return model
