# SPDX-License-Identifier: Apache-2.0
"""Finds weights of which two in every four are zero: sparse tensor cores skip those.

Sources: TensorRT's documentation, "Sparsity": for each output channel and each pixel of a kernel,
every four input channels have at least two zeros; NVIDIA Ampere architecture whitepaper: sparse
tensor cores from SM 8.0 on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from .calibration.places import Weight, places
from .capture import constant_of
from .node_places import module_path
from .quantization.operators import DEQUANTIZE, FAKE_QUANTIZE

aten = torch.ops.aten
GROUP, KEPT = 4, 2
SPARSE_SM = 8.0
"""The compute capability from which on GPUs have sparse tensor cores."""
SPARSE_TYPES = frozenset({"fp16", "bf16", "int8", "fp8"})
"""The precisions whose products TensorRT may compute with them."""


@dataclass(frozen=True)
class Sparsity:
    """One product's weight: ``why`` is empty where it is 2:4 sparse, else says what is missing.
    ``place`` is the product's module, or its node where it is in none."""

    node: str
    why: str
    place: str


def sparsities(graph: fx.Graph) -> Iterator[Sparsity]:
    """Every product of a lowered graph that has a weight."""
    for weight in places(graph, lambda node: _constant(node) is not None).weights:
        value = _constant(weight.value)
        if value is not None:
            reader = weight.reader
            place = module_path(reader) or reader.name
            yield Sparsity(reader.name, _missing(weight, value), place)


def summed_axis(weight: Weight) -> int | None:
    """The axis of a weight along which a product sums; None where its zeros cannot be skipped."""
    reader = weight.reader
    if reader.target is aten.convolution.default:
        return None if reader.args[6] or reader.args[8] != 1 else 1
    if reader.target is aten.linear.default:
        return 1
    if reader.target is aten.addmm.default:
        return 0
    return -2 if weight.index == 1 else -1


def is_sparse(value: torch.Tensor, axis: int) -> bool:
    """Whether every four numbers in a row along an axis have two zeros at least."""
    return _share(value, axis) == 1.0


def _missing(weight: Weight, value: torch.Tensor) -> str:
    axis = summed_axis(weight)
    if axis is None:
        return "its channels are in groups, or it is transposed"
    if value.shape[axis] % GROUP:
        return f"its {value.shape[axis]} input channels are no multiple of {GROUP}"
    share = _share(value, axis)
    return "" if share == 1.0 else f"{share:.0%} of its groups of four have two zeros"


def _share(value: torch.Tensor, axis: int) -> float:
    """The share of groups of four that have two zeros at least."""
    groups = value.float().movedim(axis, -1).reshape(-1, GROUP)
    return ((groups != 0).sum(1) <= KEPT).float().mean().item()


def _constant(node: object) -> torch.Tensor | None:
    """The numbers a node reads from the model, through what rounds them; None for any other."""
    if isinstance(node, fx.Node) and node.target in (FAKE_QUANTIZE, DEQUANTIZE):
        return constant_of(node.args[0])
    return constant_of(node)
