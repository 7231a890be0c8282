# SPDX-License-Identifier: Apache-2.0
"""Loops and conditionals, whose regions arrive as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .registry import kernel

Tensors = Sequence[torch.Tensor]
Function = Callable[[Tensors], list[torch.Tensor]]


@kernel
def scan(
    body: Function,
    length: int,
    axis: int,
    reverse: bool,
    states: Tensors = (),
    scanned: Tensors = (),
    captured: Tensors = (),
) -> tuple[torch.Tensor, ...]:
    state, answers = list(states), []
    for step in reversed(range(length)) if reverse else range(length):
        slices = [tensor.select(axis, step) for tensor in scanned]
        result = body([*state, *slices, *captured])
        state = result[: len(states)]
        answers.append(result[len(states) :])
    if reverse:
        answers.reverse()
    return (*state, *(torch.stack(column, axis) for column in zip(*answers, strict=True)))


@kernel
def branch(
    condition: torch.Tensor, then: Function, otherwise: Function, captured: Tensors = ()
) -> tuple[torch.Tensor, ...]:
    return tuple((then if bool(condition) else otherwise)(captured))
