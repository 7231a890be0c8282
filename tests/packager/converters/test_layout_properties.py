# SPDX-License-Identifier: Apache-2.0
"""Any slice, index, scatter, window and scale answers what eager PyTorch does.

Networks are evaluated, not built: what TensorRT builds is tested row by row elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, settings
from hypothesis import given as property_given
from hypothesis import strategies as st

from tests.packager.converters import engine
from tests.packager.converters.harness import Case, Checker, Input, dynamic, f32, given

aten = torch.ops.aten
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def _unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "build", lambda segment: None)


def _varying(shape: Sequence[int], draw: Any, fixed: int | None = None) -> Input:
    """A float tensor some of whose dims, but ``fixed``, are dynamic and grow by two."""
    tensor = f32(*shape)
    free = [d for d, size in enumerate(shape) if size > 2 and d != fixed]
    chosen = [d for d in free if draw(st.booleans())]
    return dynamic(tensor, {d: (shape[d], shape[d], shape[d] + 2) for d in chosen})


@st.composite
def slices(draw: Any) -> Case:
    shape = draw(SHAPES)
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[dim]
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = draw(st.integers(1, 3))
    tensor = _varying(shape, draw, fixed=dim % len(shape))
    return Case(aten.slice.Tensor, tensor, dim, draw(bound), draw(bound), step)


@st.composite
def indices(draw: Any) -> Case:
    shape = draw(st.lists(st.integers(3, 5), min_size=1, max_size=4))
    chosen = [draw(st.booleans()) for _ in shape]
    assume(any(chosen))
    lengths = draw(st.lists(st.sampled_from([1, 3]), min_size=1, max_size=2))
    places: list[Input | None] = []
    for size, is_indexed in zip(shape, chosen, strict=True):
        picks = st.lists(st.integers(-size, size - 1), min_size=3, max_size=3)
        rows = [draw(picks)[: lengths[-1]] for _ in range(lengths[0])]
        index = given(rows if len(lengths) == 2 else rows[0], torch.int64)
        places.append(index if is_indexed else None)
    while places[-1] is None:
        places.pop()
    return Case(aten.index.Tensor, _varying(shape, draw), places)


@st.composite
def gathers(draw: Any) -> Case:
    shape, dim, places = draw(places_along_a_dim())
    return Case(aten.gather.default, f32(*shape), dim, places)


@st.composite
def scatters(draw: Any) -> Case:
    shape, dim, places = draw(places_along_a_dim())
    reduce = draw(st.sampled_from(["sum", "prod", "mean", "amax", "amin"]))
    new = f32(*places.shape, low=0.5, high=1.5)
    return Case(
        aten.scatter_reduce.two,
        _varying(shape, draw),
        dim,
        places,
        new,
        reduce,
        include_self=draw(st.booleans()),
    )


@st.composite
def writes(draw: Any) -> Case:
    """Rows of the first dim written or added to, by indices that may meet."""
    shape = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    places = draw(st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=4))
    accumulate = draw(st.booleans())
    if not accumulate:  # of two that meet, PyTorch leaves open which stays
        places = list({place % shape[0]: place for place in places}.values())
    new = f32(*draw(st.sampled_from([(len(places), *shape[1:]), (1,)])))
    tensor = _varying(shape, draw, fixed=None if len(new.shape) == 1 == len(shape) else 0)
    if len(shape) > 1 and len(new.shape) == len(shape):
        tensor = f32(*shape)
    return Case(aten.index_put.default, tensor, [given(places, torch.int64)], new, accumulate)


@st.composite
def places_along_a_dim(draw: Any) -> tuple[list[int], int, Input]:
    """A shape, one of its dims, and indices along it that are no longer than the other dims."""
    shape = draw(SHAPES)
    dim = draw(st.integers(0, len(shape) - 1))
    sizes = [draw(st.integers(1, size + 2 * (d == dim))) for d, size in enumerate(shape)]
    count = torch.Size(sizes).numel()
    numbers = draw(st.lists(st.integers(0, shape[dim] - 1), min_size=count, max_size=count))
    return shape, dim, given(torch.tensor(numbers).view(sizes).tolist(), torch.int64)


@st.composite
def pools(draw: Any) -> Case:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    image = _varying([2, 2, draw(st.integers(4, 8)), draw(st.integers(4, 8))], draw)
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        divisor = draw(st.none() | st.integers(1, 5))
        counts = draw(st.booleans())
        return Case(aten.avg_pool2d.default, image, kernel, stride, padding, ceil, counts, divisor)
    dilation = [draw(st.integers(1, 2)) for _ in range(2)]
    assume(all(d * (k - 1) < 4 + 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)))
    return Case(
        aten.max_pool2d_with_indices.default, image, kernel, stride, padding, dilation, ceil
    )


@st.composite
def adaptive_pools(draw: Any) -> Case:
    """One to three dims pooled to any size, larger ones too."""
    spatial = draw(st.integers(1, 3))
    sizes, wanted = ([draw(st.integers(1, 7)) for _ in range(spatial)] for _ in range(2))
    image = _varying([2, 2, *sizes], draw) if draw(st.booleans()) else f32(2, 2, *sizes)
    image = dynamic(f32(*image.shape), {d: r for d, r in image.ranges.items() if d < 2})
    averages = (
        aten.adaptive_avg_pool1d.default,
        aten._adaptive_avg_pool2d.default,
        aten._adaptive_avg_pool3d.default,
    )
    return Case(averages[spatial - 1], image, wanted)


@st.composite
def convolutions(draw: Any) -> Case:
    groups, spatial = draw(st.sampled_from([1, 2])), draw(st.integers(1, 3))
    is_transposed = draw(st.booleans())
    kernel = [draw(st.integers(1, 3)) for _ in range(spatial)]
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    extra = draw(st.integers(0, max(stride, dilation) - 1)) if is_transposed else 0
    sizes = [draw(st.integers(6, 8)) for _ in range(spatial)]
    # a weight; the layer takes no computed one that is transposed, strided and dilated
    weight = Input(torch.float32, (4, 4 // groups, *kernel), constant=True)
    return Case(
        aten.convolution.default,
        _varying([2, 4, *sizes], draw, fixed=1),
        weight,
        None,
        [stride],
        [draw(st.integers(0, 1))],
        [dilation],
        is_transposed,
        [extra],
        groups,
    ).float32_only("eager sums of float16 round otherwise")


@st.composite
def resizes(draw: Any) -> Case:
    image = _varying([1, 2, draw(st.integers(3, 6)), draw(st.integers(3, 6))], draw)
    op = draw(st.sampled_from([aten.upsample_nearest2d.vec, aten._upsample_nearest_exact2d.vec]))
    smooth = draw(st.sampled_from([aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec]))
    scales = [draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.75])) for _ in range(2)]
    sizes = [draw(st.integers(1, 9)) for _ in range(2)]
    size, scale = (None, scales) if draw(st.booleans()) else (sizes, None)
    if draw(st.booleans()):
        return Case(op, image, size, scale)
    return Case(smooth, image, size, draw(st.booleans()), scale)


FAMILIES = {
    "slice": slices(),
    "index": indices(),
    "gather": gathers(),
    "scatter": scatters(),
    "write": writes(),
    "pool": pools(),
    "adaptive pool": adaptive_pools(),
    "convolution": convolutions(),
    "resize": resizes(),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_match_pytorch(family: str, check: Checker) -> None:
    _holds(FAMILIES[family], check, examples=4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_many_match_pytorch(family: str, check: Checker) -> None:
    _holds(FAMILIES[family], check, examples=40)


def _holds(cases: st.SearchStrategy[Case], check: Checker, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=True)
    @property_given(cases)
    def matches_pytorch(case: Case) -> None:
        check(case)

    matches_pytorch()
