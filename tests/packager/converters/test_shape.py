# SPDX-License-Identifier: Apache-2.0
"""Views against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    given,
    i64,
    kinds,
    size,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 2, 5)}
ANY = dynamic(f32(2, 6, 4), {0: (1, 2, 5), 1: (2, 6, 8)})
IMAGE = f32(2, 8, 4, 6)

CASES = [
    Case(aten.permute_copy.default, f32(2, 3, 4), [2, 0, 1]),
    Case(aten.transpose_copy.int, f32(2, 3, 4), 0, -1),
    Case(aten.t_copy.default, f32(2, 3)),
    Case(aten.expand_copy.default, f32(1, 3), [2, 3]),
    Case(aten.squeeze_copy.default, f32(1, 3)),
    Case(aten.squeeze_copy.dim, f32(1, 3), 0),
    Case(aten.squeeze_copy.dims, f32(1, 3), [0, 1]),
    Case(aten.unsqueeze_copy.default, f32(2, 3), -1),
    Case(aten.view.default, f32(2, 6), [3, 4]),
    Case(aten.view.default, f32(2, 6), [-1]),
    Case(aten.view.default, f32(1), []),
    Case(aten.view.default, ANY, [size(0, 0), -1]),
    Case(aten.view.default, ANY, [size(0, 0), size(0, 1), 2, 2]),
    Case(aten.view.default, ANY, [size(0, 0, lambda n: n * 2), -1]),
    Case(aten.reshape.default, i64(2, 6), [4, 3]),
    Case(aten._unsafe_view.default, f32(2, 6), [12]),
    Case(aten.view_copy.default, f32(2, 6), [12]),
    Case(aten.flatten.using_ints, ANY, 0, 1),
    Case(aten.unflatten.int, f32(2, 6), 1, [2, 3]),
    Case(aten.view_as.default, f32(2, 6), f32(3, 4)),
    Case(aten.reshape_as.default, f32(2, 6), f32(3, 4)),
    Case(aten.squeeze.default, f32(1, 3, 1)),
    Case(aten.squeeze.dim, f32(1, 3, 1), -1),
    Case(aten.squeeze.dim, f32(1, 3, 1), 1),
    Case(aten.squeeze.dims, f32(1, 3, 1), [0, 2]),
    Case(aten.unsqueeze.default, ANY, -1),
    Case(aten.unsqueeze.default, f32(), 0),
    Case(aten.permute.default, ANY, [2, 0, -2]),
    Case(aten.permute.default, f32(2, 3), [0, 1]),
    Case(aten.transpose.int, ANY, 1, -1),
    Case(aten.t.default, f32(2, 3)),
    Case(aten.t.default, f32(2)),
    Case(aten.numpy_T.default, f32(2, 3, 4)),
    Case(aten.mT.default, f32(2, 3, 4)),
    Case(aten.adjoint.default, f32(2, 3, 4)),
    Case(aten.movedim.intlist, f32(2, 3, 4), [0, 1], [-1, 0]),
    Case(aten.expand.default, f32(1, 3), [4, -1]),
    Case(aten.expand.default, f32(3), [2, 4, 3]),
    Case(aten.expand.default, dynamic(f32(2, 1, 3), BATCH), [-1, 4, -1]),
    Case(aten.expand.default, boolean(1, 3), [2, 3]),
    Case(aten.expand.default, weight(given([[1, 0, 255]], torch.uint8)), [size(1, 0), 3]).beside(
        dynamic(f32(2, 3), BATCH)
    ),
    Case(aten.expand_as.default, f32(1, 3), dynamic(f32(2, 3), BATCH)),
    Case(aten.broadcast_to.default, f32(1, 3), [2, 3]),
    Case(aten.repeat.default, f32(2, 3), [2, 3]),
    Case(aten.repeat.default, f32(2, 3), [4, 1, 2]),
    Case(aten.repeat.default, f32(1, 3), [4, 1]),
    Case(aten.repeat.default, ANY, [2, 1, 3]),
    Case(aten.repeat.default, i64(3), [2]),
    Case(aten.repeat_interleave.self_int, f32(2, 3), 2, 1),
    Case(aten.repeat_interleave.self_int, ANY, 3, 0),
    Case(aten.pixel_shuffle.default, IMAGE, 2),
    Case(aten.pixel_shuffle.default, dynamic(IMAGE, {0: (1, 2, 3), 2: (2, 4, 5)}), 2),
    Case(aten.pixel_shuffle.default, f32(8, 2, 3), 2),
    Case(aten.pixel_unshuffle.default, IMAGE, 2),
    Case(aten.pixel_unshuffle.default, dynamic(IMAGE, BATCH), 2),
    Case(aten.channel_shuffle.default, IMAGE, 4),
    Case(aten.channel_shuffle.default, dynamic(IMAGE, BATCH), 2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_what_changes_nothing_adds_no_layer() -> None:
    assert kinds(Case(aten.expand.default, f32(2, 3), [2, 3])) == []
    assert kinds(Case(aten.permute.default, f32(2, 3), [0, 1])) == []
    assert kinds(Case(aten.pixel_shuffle.default, IMAGE, 2)) == ["shuffle", "shuffle"]
