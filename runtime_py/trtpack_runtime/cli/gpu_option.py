# SPDX-License-Identifier: Apache-2.0
"""``--gpu N``: which GPU of several a command works with."""

from __future__ import annotations

import os

import click

from ..gpus import visible

GPU_HELP = "Build on this GPU of several, as CUDA counts them.  [default: 0, the first]"


def choose_gpu(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    """Leaves one GPU visible to this process and its children, before any of them starts CUDA."""
    if value is not None and not ctx.resilient_parsing:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible(value)
    return value
