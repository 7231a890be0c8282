# SPDX-License-Identifier: Apache-2.0
"""The flags that say what runs on engines and what in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def partition_options(command: Command) -> Command:
    """The flags of a partition, which ``build`` and ``explain`` share."""
    for decorate in reversed(
        (
            click.option(
                "--min-block-size",
                type=click.IntRange(1),
                metavar="N",
                help="Where the model splits, make engines of all that can be N operators or more, "
                "instead of what saves time by prediction.  [default: by prediction]",
            ),
            click.option(
                "--torch-op",
                "torch_ops",
                multiple=True,
                metavar="OP",
                help="Keep an operator in PyTorch, such as aten.add or aten.add.Tensor; with "
                "--engine inductor it is left uncompiled.",
            ),
            click.option(
                "--torch-module",
                "torch_modules",
                multiple=True,
                metavar="REGEX",
                help="Keep modules in PyTorch whose path matches whole, and all within them.",
            ),
            click.option(
                "--trt-op",
                "trt_ops",
                multiple=True,
                metavar="OP",
                help="Run an operator on an engine, even where PyTorch would be faster.",
            ),
            click.option(
                "--require-full",
                is_flag=True,
                help="Fail unless one engine runs all of the model.",
            ),
        )
    ):
        command = decorate(command)
    return command


measure_option = click.option(
    "--measure-partition",
    is_flag=True,
    help="Where this machine is the target, build and time several ways to divide the model and "
    "take the fastest, instead of predicting it.",
)
