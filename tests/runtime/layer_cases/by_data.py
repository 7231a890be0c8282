# SPDX-License-Identifier: Apache-2.0
"""Layers whose results are as long as the data says."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from tests.runtime.layer_cases.case import Case, Operand, x

T = torch.Tensor
_BOXES = (
    (0.0, 0.0, 4.0, 4.0),
    (0.5, 0.0, 4.0, 4.0),
    (10.0, 10.0, 14.0, 12.0),
    (3.0, 3.0, 6.0, 6.0),
    (10.0, 10.0, 14.0, 13.0),
    (0.0, 0.0, 4.0, 3.5),
)
_SCORES = (0.5, 0.9, 0.25, 0.75, 0.375, 0.625)


def positions() -> list[Case]:
    def case(label: str, input: Operand, *dtypes: str, dtype: str = "INT32") -> Case:
        def expected(input: T) -> T:
            places = product(*map(range, input.shape))
            rows = [place for place in places if input[place] != 0]
            found = torch.tensor(rows).reshape(len(rows), input.dim()).t()
            return found.to(getattr(torch, dtype.lower()))

        told = {} if dtype == "INT32" else {"indices_type": dtype}
        return Case("non_zero", {"input": input}, told, expected, dtypes, {"input": (0,)}, label)

    some = (0.0, 1.0, 0.0, -2.0, 0.5, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0)
    return [
        case("of truths", x(5, 3), "BOOL"),
        case("one row of truths", x(11), "BOOL", dtype="INT64"),
        case("of numbers", x(4, 3, values=some), "FLOAT", "INT32"),
        case("of halves", x(4, 3, values=some), "HALF"),
        case("three axes", x(2, 3, 2, values=some), "INT32", dtype="INT64"),
        case("nothing", x(4, values=(0, 0, 0, 0)), "BOOL"),
    ]


def suppressions() -> list[Case]:
    def boxes(*rows: tuple[float, ...]) -> Operand:
        return x(1, len(rows), 4, values=tuple(v for row in rows for v in row))

    def case(label: str, scores: Operand, wanted: list[list[int]], **told: Any) -> Case:
        given = {
            "max_output_boxes_per_class": 6,
            "iou_threshold": 0.5,
            "score_threshold": 0.0,
            "bounding_box_format": "CORNER_PAIRS",
        }
        operands = {"boxes": told.pop("boxes", boxes(*_BOXES)), "scores": scores}
        dtype = getattr(torch, told.get("indices_type", "INT32").lower())
        found = torch.tensor(wanted, dtype=dtype).reshape(-1, 3)

        def expected(boxes: T, scores: T) -> tuple[T, T]:
            return found, torch.tensor(len(found), dtype=torch.int32)

        return Case("nms", operands, given | told, expected, ("FLOAT",), label=label)

    column = x(1, 6, 1, values=_SCORES)
    both = x(1, 6, 2, values=tuple(v for s in _SCORES for v in (s, 0.95 - s)))
    sizes = boxes(*((a + (c - a) / 2, b + (d - b) / 2, c - a, d - b) for a, b, c, d in _BOXES))
    swapped = boxes(*((c, b, a, d) for a, b, c, d in _BOXES))
    kept = [[0, 0, 1], [0, 0, 3], [0, 0, 4]]
    kept_of_two = [[0, 0, 1], [0, 0, 3], [0, 1, 2], [0, 1, 0], [0, 0, 4], [0, 1, 3]]
    return [
        case("one class", column, kept),
        case("as INT64", column, kept, indices_type="INT64"),
        case("corners the other way", column, kept, boxes=swapped),
        case("centers and sizes", column, kept, bounding_box_format="CENTER_SIZES", boxes=sizes),
        case("two at most", column, kept[:2], max_output_boxes_per_class=2),
        case("above a score", column, kept[:2], score_threshold=0.4375),
        case("any overlap", column, [[0, 0, 1], [0, 0, 4]], iou_threshold=0.0),
        case("the three best", column, kept[:2], topk_box_limit=3),
        case("none", column, [], score_threshold=0.9375),
        case("two classes", both, kept_of_two),
    ]
