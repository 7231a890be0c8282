# SPDX-License-Identifier: Apache-2.0
"""Emitting functions of the kinds whose results are as long as the data says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtpack_runtime.dims import Dim

from ._layers import Added, emitter, indices_of, number

if TYPE_CHECKING:
    from ._emit import Emitter


@emitter
def non_zero(e: Emitter, input: Any, indices_type: str = "INT32") -> Added:
    layer = e.made(e.definition.add_non_zero(input))
    return Added((layer,), (indices_of(e, layer, 0, indices_type),))


@emitter
def nms(
    e: Emitter,
    boxes: Any,
    scores: Any,
    max_output_boxes_per_class: Dim,
    iou_threshold: float,
    score_threshold: float,
    bounding_box_format: str,
    topk_box_limit: int | None = None,
    indices_type: str = "INT32",
) -> Added:
    most = number(e, max_output_boxes_per_class, "INT32")
    layer = e.made(e.definition.add_nms(boxes, scores, most))
    for index, threshold in enumerate((iou_threshold, score_threshold), start=3):
        layer.set_input(index, e.constant("FLOAT", (), (threshold,)))
    layer.bounding_box_format = e.enum("BoundingBoxFormat", bounding_box_format)
    if topk_box_limit is not None:
        layer.topk_box_limit = topk_box_limit
    return Added((layer,), (indices_of(e, layer, 0, indices_type), layer.get_output(1)))
