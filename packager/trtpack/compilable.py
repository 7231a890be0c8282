# SPDX-License-Identifier: Apache-2.0
"""Which of PyTorch's segments can be compiled ahead of time, and answer what PyTorch answers."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx

from .branches import every_branch
from .converters.node import leaves
from .converters.symbols import told_by_data

_SWITCHES = ("dropout_p", "dropout", "train", "training")
"""Arguments without which nothing is drawn, where an operator has them."""


def why_eager(module: fx.GraphModule) -> str | None:
    """Why a segment has to run operator by operator, as a clause, or None.

    Source: AOTInductor allocates by sizes that are known before a kernel runs, and draws random
    numbers by a generator of its own.
    """
    for graph in (module, *every_branch(module)):
        for node in graph.graph.nodes:
            tags = getattr(node.target, "tags", ())
            if torch.Tag.nondeterministic_seeded in tags and _draws(node):
                return f"{node.target} draws random numbers"
            if torch.Tag.data_dependent_output in tags:
                return f"{node.target} waits for the data"
            if any(map(told_by_data, _sizes(node))):
                return f"the data tells the sizes of {node.target}"
    return None


def _draws(node: fx.Node) -> bool:
    """Whether an operator that can draw random numbers does: attention without dropout does not."""
    operator = cast("torch._ops.OpOverload", node.target)  # no other target has tags
    given = {a.name: a.default_value for a in operator._schema.arguments}
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    return all(given.get(name, True) for name in _SWITCHES)


def _sizes(node: fx.Node) -> list[object]:
    return [size for value in leaves(node.meta.get("val")) for size in value.shape]
