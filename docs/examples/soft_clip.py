# SPDX-License-Identifier: Apache-2.0
"""An operator of one's own, in a module that a device can import: ``trtpack run --import``."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("examples::soft_clip", mutates_args=())
def soft_clip(x: Tensor, limit: float) -> Tensor:
    """Nearly the identity for small numbers, never beyond ``limit``."""
    return torch.tanh(x / limit) * limit


@soft_clip.register_fake
def _(x: Tensor, limit: float) -> Tensor:
    return torch.empty_like(x)
