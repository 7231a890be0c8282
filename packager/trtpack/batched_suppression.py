# SPDX-License-Identifier: Apache-2.0
"""Lets torchvision's ``batched_nms`` be traced however many boxes there are.

It asks how many there are, and takes another way for many and for none, which tracing cannot
follow where only the data tells. While ``batched_suppression`` holds, it takes the way that it has
for few: boxes of each class are moved apart, and suppressed together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def batched_suppression() -> Iterator[None]:
    """Within, ``batched_nms`` has one way for any number of boxes, under each name it has."""
    boxes = sys.modules.get("torchvision.ops.boxes")
    if boxes is None:
        yield
        return
    # its code, so that nobody has to be looked for who has the function under a name of his own
    known = boxes.batched_nms
    own, known.__code__ = known.__code__, _batched_nms.__code__
    try:
        yield
    finally:
        known.__code__ = own


def _batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """As ``torchvision.ops.boxes._batched_nms_coordinate_trick``, where there is a box.

    Its code runs among the names of ``torchvision.ops.boxes``, of which it reads ``torch``.
    """
    reach = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    moved = boxes + (idxs.to(boxes) * (reach + 1))[:, None]
    kept: torch.Tensor = torch.ops.torchvision.nms(moved, scores, iou_threshold)
    return kept
