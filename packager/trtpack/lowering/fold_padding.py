# SPDX-License-Identifier: Apache-2.0
"""Lets a convolution or a pooling window pad for itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .match import arguments, calls, number

aten = torch.ops.aten

_AVERAGES = (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
_MAXIMA = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)


def fold_padding(graph: fx.Graph) -> int:
    """Add what ``constant_pad_nd`` adds to the padding of the convolution or pooling that reads it.

    Convolutions and averages pad zeros, maxima pad -inf. An average then counts its padding, as it
    counted the zeros.

    Needs:   pads of known size.
    Keeps:   pads of other values, negative ones, and ones that differ at the two ends of a dim (a
             node has one number for both); transposed convolutions; pooling that would pad more
             than half its window, that is rounded up, or whose average leaves out other padding.
    Returns: how many layers it changed; the runner erases the dead nodes.
    """
    folded = 0
    for node in list(graph.nodes):
        if calls(node, (aten.convolution.default,)):
            folded += _into_convolution(node)
        elif calls(node, (*_AVERAGES, *_MAXIMA)):
            folded += _into_pooling(node)
    return folded


def _into_convolution(node: fx.Node) -> int:
    padding, transposed = node.args[4:7:2]
    found = _padded(node.args[0], padding, 0.0)
    if transposed or found is None:
        return 0
    node.args = (found[0], *node.args[1:4], found[1], *node.args[5:])
    return 1


def _into_pooling(node: fx.Node) -> int:
    given = arguments(node)
    average = node.target in _AVERAGES
    found = _padded(given["input"], given["padding"], 0.0 if average else -math.inf)
    if found is None or given["ceil_mode"]:
        return 0
    source, padding = found
    if any(2 * p > k for p, k in zip(padding, given["kernel_size"], strict=True)):
        return 0
    if average:
        divided = given.get("divisor_override") is not None or given["count_include_pad"]
        if any(given["padding"]) and not divided:
            return 0
        given["count_include_pad"] = True
    node.args = tuple({**given, "input": source, "padding": padding}.values())
    node.kwargs = {}
    return 1


def _padded(pad: Any, padding: Any, value: float) -> tuple[fx.Node, list[int]] | None:
    """What ``pad`` pads with ``value``, and the sum of its padding and that of its reader."""
    if not calls(pad, (aten.constant_pad_nd.default,)):
        return None
    filled = pad.args[2] if len(pad.args) > 2 else 0
    amounts = pad.args[1]
    if number(filled) != value or not all(isinstance(a, int) and a >= 0 for a in amounts):
        return None
    sides = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    if len(sides) > len(padding) or any(a != b for a, b in sides):
        return None
    each = [0] * (len(padding) - len(sides)) + [int(a) for a, _ in sides]
    return pad.args[0], [p + more for p, more in zip(padding, each, strict=True)]
