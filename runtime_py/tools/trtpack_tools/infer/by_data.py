# SPDX-License-Identifier: Apache-2.0
"""Rules of the layers whose results are as long as the data says."""

from __future__ import annotations

from trtpack_runtime.dims import Dim, by_data
from trtpack_runtime.layers import INTS
from trtpack_runtime.network import Tensor

from .rules import Results, require, require_rank, require_shape, rule


@rule
def non_zero(input: Tensor, indices_type: str = "INT32") -> Results:
    """A column for each element that is not zero, its place along every axis from top to bottom."""
    require(input.rank >= 1, f"operand input: wanted rank 1 or more, got {input}")
    _require_indices(indices_type)
    return [(indices_type, (input.rank, by_data(1)))]


@rule
def nms(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Dim,
    iou_threshold: float,
    score_threshold: float,
    bounding_box_format: str,
    topk_box_limit: int | None = None,
    indices_type: str = "INT32",
) -> Results:
    """A row (batch, class, box) for each box that is kept, and how many rows there are."""
    require_rank("scores", scores, 3)
    require_rank("boxes", boxes, 3, 4)
    batch, count, classes = scores.shape
    require_shape("boxes", boxes, (batch, count, *(classes,) * (boxes.rank - 3), 4))
    for name, value in (("iou_threshold", iou_threshold), ("score_threshold", score_threshold)):
        require(0 <= value <= 1, f"attribute {name}: wanted 0 to 1, got {value}")
    if topk_box_limit is not None:
        limit = MOST_BOXES
        require(
            0 < topk_box_limit <= limit,
            f"attribute topk_box_limit: wanted 1 to {limit}, got {topk_box_limit}",
        )
    _require_indices(indices_type)
    return [(indices_type, (by_data(0), 3)), ("INT32", ())]


MOST_BOXES = 5000
"""Of an image, the best ones, that TensorRT looks at (NvInfer.h, INMSLayer)."""


def _require_indices(dtype: str) -> None:
    require(dtype in INTS, f"attribute indices_type: got {dtype}")
