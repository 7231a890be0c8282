# SPDX-License-Identifier: Apache-2.0
"""The model of scripts/demo: torchvision's ResNet-18 with livened random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtpack.livening import liven
from trtpack.sources.torchvision_ops import import_torchvision


def resnet18() -> tuple[nn.Module, tuple[Tensor]]:
    """ResNet-18 for 224 by 224 images: outputs depend on the input, and are the same every run."""
    torch.manual_seed(0)
    model = import_torchvision().models.resnet18(weights=None).eval()
    inputs = (torch.randn(1, 3, 224, 224),)
    liven(model, inputs, seed=0)
    return model, inputs
