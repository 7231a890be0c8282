# SPDX-License-Identifier: Apache-2.0
"""Whether AOTInductor lays convolutions out with their channels last."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from trtpack_runtime.engines._inductor_child import _gains_by_layout, _is_for_tensor_cores

WIDE, SMALL = nn.Conv2d(64, 64, 3), nn.Conv2d(3, 8, 3)


@pytest.mark.parametrize(
    ("layers", "shape", "gains"),
    [
        (WIDE, (1, 64, 8, 8), False),  # 36,864 weights, 6,400 numbers
        (WIDE, (32, 64, 8, 8), True),
        (SMALL, (1, 3, 32, 32), True),
        (nn.Sequential(SMALL, nn.Conv2d(8, 900, 6)), (1, 3, 8, 8), False),
        (nn.ConvTranspose2d(64, 64, 4), (1, 64, 4, 4), False),
        (nn.ConvTranspose2d(4, 4, 4), (1, 4, 16, 16), True),
        (nn.Conv1d(4, 4, 3), (1, 4, 64), True),
        (nn.Linear(4, 4), (1, 4), False),  # nothing to lay out
    ],
)
def test_weights_are_weighed_against_what_is_read_and_written(
    layers: nn.Module, shape: tuple[int, ...], gains: bool
) -> None:
    assert _gains_by_layout(torch.export.export(layers, (torch.zeros(shape),))) is gains


def test_a_size_that_varies_counts_as_its_example() -> None:
    batch = {0: torch.export.Dim.DYNAMIC(min=1, max=64)}
    programs = (
        torch.export.export(WIDE, (torch.zeros(size, 64, 8, 8),), dynamic_shapes=(batch,))
        for size in (2, 32)
    )
    assert [_gains_by_layout(program) for program in programs] == [False, True]


class Casting(nn.Module):
    """Convolves in float16 what it is given in float32, as autocast does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x.half(), self.weight.half()).float()


@pytest.mark.parametrize(
    ("layers", "dtype", "tf32", "takes"),
    [
        (SMALL, torch.float32, False, False),
        (SMALL, torch.float32, True, True),
        (SMALL, torch.float64, True, False),
        (SMALL, torch.float16, False, True),
        (WIDE, torch.bfloat16, False, True),  # whatever its weights
        (Casting(), torch.float32, False, True),
        (nn.Linear(32, 4), torch.float16, True, False),
    ],
)
def test_a_gpu_gains_where_its_tensor_cores_convolve(
    layers: nn.Module, dtype: torch.dtype, tf32: bool, takes: bool
) -> None:
    channels = next(layers.parameters()).shape[1]
    values = torch.zeros(1, channels, 32, 32, dtype=dtype)
    program = torch.export.export(deepcopy(layers).to(dtype), (values,))
    assert _is_for_tensor_cores(program, tf32) is takes
