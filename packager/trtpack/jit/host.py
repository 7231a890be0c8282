# SPDX-License-Identifier: Apache-2.0
"""Moves a graph to the CPU, where graphs are lowered whatever device they are to run on."""

from __future__ import annotations

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

_HOST = torch.device("cpu")


def move_to_host(module: fx.GraphModule) -> None:
    """Moves a graph's tensors, what is known of its values and the devices that it names.

    So do the graphs that its nodes have. A graph that is on the CPU stays as it is, tensor by
    tensor.
    """
    module.to(_HOST)
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            moved = [_move(node) for node in part.graph.nodes]
            if any(moved):
                part.recompile()


def _move(node: fx.Node) -> bool:
    """Moves a node; whether it names another device, and so the graph's code did."""
    if "val" in node.meta:
        known = pytree.tree_map_only(FakeTensor, _known_on_host, node.meta["val"])
        node.meta = {**node.meta, "val": known}
    given = (node.args, node.kwargs)
    if all(leaf == _HOST for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.device)):
        return False
    node.args, node.kwargs = pytree.tree_map_only(torch.device, lambda _: _HOST, given)
    return True


def _known_on_host(value: FakeTensor) -> torch.Tensor:
    """A fake tensor of the same sizes and strides."""
    if value.device == _HOST:
        return value
    with value.fake_mode:
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=_HOST)
