# SPDX-License-Identifier: Apache-2.0
"""Removes masks that hide nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .graph import forward
from .match import calls, fixed
from .sizes import alike, sizes

aten = torch.ops.aten

_FILLS = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
_ANDS = (aten.bitwise_and.Tensor, aten.logical_and.default)


def drop_true_masks(graph: fx.Graph) -> int:
    """Remove constant masks that are true (or, where they fill, false) everywhere.

    ``where(mask, a, b)`` becomes ``a`` or ``b``, ``masked_fill`` its input, and attention loses a
    mask that lets every key take part or adds nothing. Of ``true & mask`` it keeps ``mask`` in the
    shape it has of itself: a row of keys, as a rule, and not one for each query.

    Needs:   constants that are folded.
    Keeps:   a mask that is a parameter or follows from one, and one that gives the result its
             shape or type.
    Returns: how many it removed; the runner erases the dead nodes.
    """
    dropped = 0
    for node in list(graph.nodes):
        if calls(node, _FILLS) and _all(node.args[1], False):
            dropped += _replace(node, node.args[0])
        elif calls(node, (aten.where.self,)):
            if _all(node.args[0], True):
                dropped += _replace(node, node.args[1])
            elif _all(node.args[0], False):
                dropped += _replace(node, node.args[2])
        elif calls(node, (aten.scaled_dot_product_attention.default,)):
            dropped += _drop_attention_mask(node)
    return dropped


def _drop_attention_mask(node: fx.Node) -> int:
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if (_all(mask, True) or _all_zero(mask)) and _within(mask, node.args[0]):
        left = None
    else:
        left = _without_true(mask)
    if left is mask:
        return 0
    if len(node.args) > 3:
        node.args = (*node.args[:3], left, *node.args[4:])
    else:
        node.kwargs = {**node.kwargs, "attn_mask": left}
    return 1


def _without_true(mask: Any) -> Any:
    """A mask's part that is not known to be true, if it has a size for every key."""
    if not calls(mask, _ANDS):
        return mask
    for truth, other in (mask.args[:2], mask.args[1::-1]):
        if _all(truth, True) and isinstance(other, fx.Node):
            have, want = (sizes(n.meta["val"].shape) for n in (other, mask))
            if len(have) >= 2 and have[-1:] == want[-1:] and other.meta["val"].dtype == torch.bool:
                return _without_true(other)
    return mask


def _within(mask: Any, query: Any) -> bool:
    """Whether a mask's batch is the query's, or 1."""
    theirs, ours = (sizes(n.meta["val"].shape[:-2]) for n in (mask, query))
    pairs = zip(theirs[::-1], ours[::-1], strict=False)
    return len(theirs) <= len(ours) and all(m in (1, q) for m, q in pairs)


def _all(node: Any, truth: bool) -> bool:
    mask = fixed(node)
    return mask is not None and mask.dtype == torch.bool and bool((mask == truth).all())


def _all_zero(node: Any) -> bool:
    mask = fixed(node)
    return mask is not None and mask.is_floating_point() and not bool(mask.any())


def _replace(node: fx.Node, source: Any) -> int:
    before = source.meta.get("val") if isinstance(source, fx.Node) else None
    return forward(node, source) if before is not None and alike(before, node.meta["val"]) else 0
