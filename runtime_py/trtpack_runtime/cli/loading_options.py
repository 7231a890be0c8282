# SPDX-License-Identifier: Apache-2.0
"""Flags of commands that load a bundle, which several have."""

from __future__ import annotations

import click

target_flag = click.option(
    "-t", "--target", metavar="NAME", help="Take this variant, not the best one."
)
device_flag = click.option("--device", metavar="DEVICE", help="Run there: cpu, cuda, cuda:1.")
trust_flag = click.option(
    "--trust", is_flag=True, help="Load machine code that another machine built."
)
no_build_flag = click.option(
    "--no-build", is_flag=True, help="Run in PyTorch what this device would have to build first."
)
import_flag = click.option(
    "--import",
    "imports",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers operators. Repeat for several.",
)
