# SPDX-License-Identifier: Apache-2.0
"""``--gpu N``: which GPU of several a command works with."""

from __future__ import annotations

import os
from functools import partial

import click

from ..gpus import visible


def choose_gpu(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    """Leaves one GPU visible to this process and its children, before any of them starts CUDA."""
    if value is not None and not ctx.resilient_parsing:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible(value)
    return value


gpu_option = partial(
    click.option,
    "--gpu",
    metavar="N",
    type=click.IntRange(min=0),
    expose_value=False,
    callback=choose_gpu,
    help="Build on this GPU of several, as CUDA counts them.  [default: 0, the first]",
)
"""The option, to be called for a command, with its section of the help where that has some."""
