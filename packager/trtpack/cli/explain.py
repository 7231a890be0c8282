# SPDX-License-Identifier: Apache-2.0
"""``trtpack explain``: what a build would do."""

from __future__ import annotations

from typing import Any

import click

from .build import model_argument, model_options, run_build

EXAMPLES = """\b
Examples:
  trtpack explain torchvision:swin_t -t orin -t rtx-4090
  trtpack explain model.py:make_model -t orin@jetpack-6.0 --input x=1/4/8x3x640x640
"""


@click.command(epilog=EXAMPLES)
@model_argument(required=True)
@model_options
@click.option("--report", type=click.Path(), metavar="FILE", help="Also write the plan as JSON.")
def explain(model: str, **arguments: Any) -> None:
    """Print the plan of `trtpack build MODEL`: which operators TensorRT takes, which stay in
    PyTorch and why, and the segments they form. No engine is built and nothing is written.
    """
    run_build(model, dry_run=True, **arguments)
