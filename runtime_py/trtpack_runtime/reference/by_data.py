# SPDX-License-Identifier: Apache-2.0
"""Layers whose results are as long as the data says."""

from __future__ import annotations

import torch

from .pointwise import torch_dtype
from .registry import kernel

T = torch.Tensor
_MOST_BOXES = 5000


@kernel
def non_zero(input: T, indices_type: str = "INT32") -> T:
    return torch.nonzero(input).t().contiguous().to(torch_dtype(indices_type))


@kernel
def nms(
    boxes: T,
    scores: T,
    max_output_boxes_per_class: int,
    iou_threshold: float,
    score_threshold: float,
    bounding_box_format: str,
    topk_box_limit: int = _MOST_BOXES,
    indices_type: str = "INT32",
) -> tuple[T, T]:
    corners = _corners(boxes.float(), bounding_box_format)
    rows = []
    for image, (places, points) in enumerate(zip(corners, scores.float(), strict=True)):
        order = torch.argsort(points.flatten(), descending=True, stable=True)
        order = order[points.flatten()[order] > score_threshold][:topk_box_limit]
        box, of = order // points.shape[1], order % points.shape[1]
        found = places[box, of] if places.dim() == 3 else places[box]
        kept = _kept(found, of, iou_threshold, max_output_boxes_per_class)
        first = torch.full_like(box, image)
        rows.append(torch.stack([first, of, box], 1)[kept])
    picked = torch.cat(rows).to(torch_dtype(indices_type))
    return picked, torch.tensor(len(picked), dtype=torch.int32, device=picked.device)


def _corners(boxes: T, format: str) -> T:
    """Boxes as their lowest and highest corner."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if format == "CENTER_SIZES":
        first, second = first - second / 2, first + second / 2
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _kept(boxes: T, classes: T, iou_threshold: float, most: int) -> T:
    """Which boxes, the best first, no better one of their class overlaps too much."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    alive = torch.ones_like(classes, dtype=torch.bool)
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        low = torch.maximum(boxes[i, :2], boxes[:, :2])
        shared = (torch.minimum(boxes[i, 2:], boxes[:, 2:]) - low).clamp(min=0).prod(1)
        beside = (classes == classes[i]) & (shared / (areas[i] + areas - shared) > iou_threshold)
        beside[: i + 1] = False
        if int((alive[:i] & (classes[:i] == classes[i])).sum()) + 1 >= most:
            beside[i + 1 :] |= classes[i + 1 :] == classes[i]
        alive &= ~beside
    if not most:
        alive[:] = False
    return alive
