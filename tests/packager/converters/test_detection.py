# SPDX-License-Identifier: Apache-2.0
"""Detectors' own operators against torchvision's kernels in Python."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    converted,
    dynamic,
    f32,
    given,
    i64,
    refusal,
    weight,
)
from trtpack.sources.torchvision_ops import import_torchvision
from trtpack_runtime import reference

import_torchvision()
ALIGN = torch.ops.torchvision.roi_align.default
ROIS = [[0, 1.0, 2.0, 6.5, 5.0], [1, 0.0, 0.0, 9.0, 7.0], [0, 3.2, 1.1, 3.4, 1.2]]
BEYOND = [[1, -6.0, -5.0, 4.0, 3.0], [0, 5.0, 4.0, 30.0, 20.0], [1, -9.0, 9.0, -4.0, 12.0]]
SHRUNK = [[0, 5.0, 5.0, 2.0, 3.0], [1, 4.0, 4.0, 4.0, 4.0]]
HALVES = "the kernel in Python places samples in float16, which has too few digits"

CASES = [
    Case(ALIGN, f32(2, 3, 8, 10), given(rois), scale, *pooled, ratio, aligned).float32_only(HALVES)
    for rois, scale, pooled, ratio, aligned in (
        (ROIS, 1.0, (3, 2), 2, False),
        (ROIS, 1.0, (3, 2), 2, True),
        (ROIS, 0.25, (2, 2), 1, False),
        (ROIS, 1.1, (7, 7), 3, True),
        (SHRUNK, 1.0, (2, 3), 2, False),
        (SHRUNK, 1.0, (2, 3), 2, True),
    )
]
CASES += [
    Case(
        ALIGN,
        dynamic(f32(1, 2, 8, 10), {2: (4, 8, 12), 3: (5, 10, 11)}),
        dynamic(f32(6, 5, low=0, high=1), {0: (1, 6, 9)}),
        3.0,
        2,
        2,
        2,
        aligned,
    ).float32_only(HALVES)
    for aligned in (False, True)
]
CASES += [
    Case(ALIGN, f32(1, 2, 1, 1), given([[0, 0.1, 0.2, 0.9, 0.8]]), 1.0, 2, 2, 2, True).float32_only(
        HALVES
    ),
    Case(ALIGN, f32(2, 3, 8, 10), given([[1.0, 0, 0, 8, 4], [0, 2, 2, 6, 6]]), 1.0, 2, 2, 2, False),
]


@dataclass(frozen=True)
class Boxes(Input):
    """Boxes by their lower and their upper corners."""

    def sample(self, which: int, generator: torch.Generator) -> torch.Tensor:
        first, second = super().sample(which, generator).chunk(2, 1)
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


VARYING = {0: (1, 6, 40)}
NMS = torch.ops.torchvision.nms.default
NO_HALVES = "torchvision's kernel for CPUs takes none"
BOXES = given(
    [
        [0.0, 0.0, 4.0, 4.0],
        [0.5, 0.0, 4.0, 4.0],
        [10.0, 10.0, 14.0, 12.0],
        [3.0, 3.0, 6.0, 6.0],
        [10.0, 10.0, 14.0, 13.0],
        [0.0, 0.0, 4.0, 3.5],
        [20.0, 20.0, 20.0, 20.0],
    ]
)
SCORES = given([0.5, 0.9, -0.25, 0.5, -3.0, 0.5, 2.0])
NMS_CASES = [
    Case(NMS, boxes, scores, threshold).float32_only(NO_HALVES).not_on_rtx()
    for boxes, scores, threshold in (
        (BOXES, SCORES, 0.5),
        (BOXES, f32(7), 0.0),
        (BOXES, f32(7), 1.0),
        (BOXES, given([1.0] * 7), 0.3),
        (given([[1.0, 2.0, 3.0, 4.0]]), f32(1), 0.5),
        (Boxes(torch.float32, (6, 4), ranges=VARYING), dynamic(f32(6), VARYING), 0.25),
    )
]
DEFORM = torch.ops.torchvision.deform_conv2d.default
STEPS = (1, 1, 0, 0, 1, 1)
IMAGE = f32(2, 4, 6, 7)
MOVED = f32(2, 18, 4, 5)
DEFORM_CASES = [
    case.exact("eager places pixels in float16: what is more exact departs from it")
    for case in (
        Case(
            DEFORM,
            f32(2, 4, 6, 7),
            f32(3, 4, 3, 3),
            MOVED,
            f32(2, 9, 4, 5),
            f32(3),
            *STEPS,
            1,
            1,
            True,
        ),
        Case(
            DEFORM, f32(2, 4, 6, 7), f32(3, 4, 3, 3), MOVED, f32(2, 1), f32(3), *STEPS, 1, 1, False
        ),
        Case(
            DEFORM,
            f32(2, 4, 9, 8),
            weight(f32(6, 2, 2, 3)),
            f32(2, 24, 6, 2),
            f32(2, 12, 6, 2, low=0, high=1),
            weight(f32(6)),
            *(2, 3, 2, 1, 1, 2),
            2,
            2,
            True,
        ),
        Case(
            DEFORM,
            dynamic(f32(2, 2, 6, 7), {0: (1, 2, 3), 2: (4, 6, 8)}),
            weight(f32(2, 2, 1, 1)),
            dynamic(f32(2, 2, 6, 7), {0: (1, 2, 3), 2: (4, 6, 8)}),
            dynamic(f32(2, 1, 6, 7), {0: (1, 2, 3), 2: (4, 6, 8)}),
            weight(f32(2)),
            *STEPS,
            1,
            1,
            True,
        ),
    )
]


@pytest.mark.parametrize("case", [*CASES, *NMS_CASES, *DEFORM_CASES], ids=str)
def test_matches_torchvision(case: Case, check: Checker) -> None:
    with torch.compiler.set_stance("force_eager"):
        check(case)


@pytest.mark.parametrize("aligned", [False, True])
def test_samples_outside_the_map_are_zero_as_in_the_compiled_kernel(aligned: bool) -> None:
    """torchvision's kernel in Python takes the border's pixels there instead."""
    case = Case(ALIGN, f32(2, 3, 8, 10), given(BEYOND), 1.0, 4, 5, 2, aligned)
    segment, (maps, rois) = converted(case), case.samples(1)
    (answer,) = reference.evaluate(segment.network, segment.constants, {"x0": maps, "x1": rois})
    wanted = torch.zeros(3, 3, 4, 5)
    for box, (image, *edges) in enumerate(rois.tolist()):
        left, top, right, bottom = (e - 0.5 * aligned for e in edges)
        high, wide = bottom - top, right - left
        for i, j, a, b in itertools.product(range(4), range(5), range(2), range(2)):
            y = top + (i + (a + 0.5) / 2) * (high if aligned else max(high, 1)) / 4
            x = left + (j + (b + 0.5) / 2) * (wide if aligned else max(wide, 1)) / 5
            wanted[box, :, i, j] += _pixel(maps[int(image)], y, x) / 4
    torch.testing.assert_close(answer, wanted)


def _pixel(pixels: torch.Tensor, y: float, x: float) -> torch.Tensor:
    _, height, width = pixels.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(pixels))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    above, before = int(y), int(x)
    below, behind = min(above + 1, height - 1), min(before + 1, width - 1)
    top = torch.lerp(pixels[:, above, before], pixels[:, above, behind], x - before)
    bottom = torch.lerp(pixels[:, below, before], pixels[:, below, behind], x - before)
    return torch.lerp(top, bottom, y - above)


def test_samples_whose_number_depends_on_the_boxes_are_refused() -> None:
    reason = "how many samples it takes depends on the boxes; give a sampling_ratio above 0"
    for ratio in (0, -1):
        assert refusal(ALIGN, f32(2, 3, 8, 10), given(ROIS), 1.0, 2, 2, ratio, False) == reason


def test_maps_of_integers_are_refused() -> None:
    whole = given([[0, 1, 2, 6, 5]], torch.int64)
    found = refusal(ALIGN, i64(2, 3, 8, 10), whole, 1.0, 2, 2, 2, False)
    assert found == "TensorRT computes this in floats only, got int64"


def test_more_boxes_than_tensorrt_looks_at_are_refused() -> None:
    told = {"target": "orin@jetpack-6.2"}
    assert refusal(NMS, f32(5000, 4), f32(5000), 0.5, **told) is None
    assert refusal(NMS, f32(8400, 4), f32(8400), 0.5, **told) == (
        "TensorRT looks at the 5000 best boxes only, here are up to 8400; torch._check their "
        "number, or keep the best before"
    )
    varying = {0: (1, 100, 6000)}
    reason = refusal(NMS, dynamic(f32(4, 4), varying), dynamic(f32(4), varying), 0.5, **told)
    assert "here are up to 6000" in str(reason)


def test_an_overlap_that_no_boxes_have_is_refused() -> None:
    for threshold in (-0.5, 1.5):
        reason = refusal(NMS, BOXES, SCORES, threshold, target="orin@jetpack-6.2")
        assert reason == "TensorRT takes overlaps from 0 to 1"


def test_a_threshold_is_rounded_to_the_float_that_decides_alike() -> None:
    for threshold in (0.3, 0.7, 0.5, 1 / 3):
        layers = converted(Case(NMS, BOXES, SCORES, threshold), "orin@jetpack-6.2").network.layers
        (told,) = (la.attributes["iou_threshold"] for la in layers if la.kind == "nms")
        assert told <= threshold < told * (1 + 2**-23) + 1e-12
