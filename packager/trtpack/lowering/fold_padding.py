# SPDX-License-Identifier: Apache-2.0
"""Lets a convolution pad for itself."""

from __future__ import annotations

import torch
from torch import fx

from .match import calls, number

aten = torch.ops.aten


def fold_padding(graph: fx.Graph) -> int:
    """Add the zeros of ``constant_pad_nd`` to the padding of the convolution that reads it.

    Needs:   pads of known size.
    Keeps:   pads of other values, negative ones, ones that differ at the two ends of a dim (a
             convolution node has one number for both), and transposed convolutions.
    Returns: how many convolutions it changed; the runner erases the dead nodes.
    """
    folded = 0
    for node in graph.find_nodes(op="call_function", target=aten.convolution.default):
        source = node.args[0]
        if node.args[6] or not calls(source, (aten.constant_pad_nd.default,)):
            continue
        pads = _spatial(source, len(node.args[4]))
        if pads is None:
            continue
        padding = [p + more for p, more in zip(node.args[4], pads, strict=True)]
        node.args = (source.args[0], *node.args[1:4], padding, *node.args[5:])
        folded += 1
    return folded


def _spatial(pad: fx.Node, dims: int) -> list[int] | None:
    """The zeros on each side of each spatial dim; None where a convolution cannot add them."""
    value = pad.args[2] if len(pad.args) > 2 else 0
    amounts = list(pad.args[1])  # type: ignore[arg-type]
    if number(value) != 0 or not all(isinstance(a, int) and a >= 0 for a in amounts):
        return None
    sides = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    if any(a != b for a, b in sides):
        return None
    each = [int(a) for a, _ in sides]
    each = [0] * (dims - len(each)) + each
    return each[-dims:] if not any(each[:-dims]) else None
