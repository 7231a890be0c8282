# SPDX-License-Identifier: Apache-2.0
"""Folds an inference batch norm into the convolution or linear layer before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from trtpack.capture import constant_of

from .graph import insert

aten = torch.ops.aten


@dataclass(frozen=True)
class Norm:
    """A batch norm by running statistics: the node, what others read of it, and its operands."""

    node: fx.Node
    output: fx.Node
    input: Any
    gamma: Any
    beta: Any
    mean: Any
    variance: Any
    epsilon: float


def fold_batch_norm(graph: fx.Graph) -> int:
    """Scale the kernel and shift the bias of ``batch_norm(convolution(x))``.

    With ``s = gamma / sqrt(variance + eps)``: ``kernel' = kernel * s`` per output channel and
    ``bias' = (bias - mean) * s + beta``, written as operators over parameters that
    ``fold_constants`` evaluates, in float32 whatever the parameters' type.

    Needs:   running statistics and parameters that are constants.
    Keeps:   a batch norm whose input others read too, and batch norms that use the batch's own
             statistics.
    Returns: how many it folded.
    """
    folded = 0
    for node in list(graph.nodes):
        norm = norm_of(node)
        if norm is None:
            continue
        producer = norm.input
        flat = producer.target is aten.linear.default and producer.meta["val"].dim() == 2
        if not flat and producer.target is not aten.convolution.default:
            continue
        kernel = producer.args[1]
        bias = producer.args[2] if len(producer.args) > 2 else None
        if len(producer.users) > 1 or not _constants(norm, kernel, bias):
            continue
        _fold(graph, norm, producer, kernel, bias)
        folded += 1
    return folded


def norm_of(node: fx.Node) -> Norm | None:
    """A node as a batch norm by running statistics; None for any other."""
    if node.target is aten._native_batch_norm_legit_no_training.default:
        outputs = [u for u in node.users if u.args[1] == 0]
        if len(outputs) != 1 or len(outputs) != len(node.users):
            return None
        x, gamma, beta, mean, variance, _, epsilon = node.args
        return Norm(node, outputs[0], x, gamma, beta, mean, variance, float(epsilon))  # type: ignore[arg-type]  # as its schema says
    if node.target is aten.batch_norm.default and node.args[5] is False:
        x, gamma, beta, mean, variance, _, _, epsilon, *_ = node.args
        return Norm(node, node, x, gamma, beta, mean, variance, float(epsilon))  # type: ignore[arg-type]  # as its schema says
    return None


def _constants(norm: Norm, kernel: Any, bias: Any) -> bool:
    needed = (norm.mean, norm.variance, kernel)
    optional = (norm.gamma, norm.beta, bias)
    return all(constant_of(n) is not None for n in needed) and all(
        n is None or constant_of(n) is not None for n in optional
    )


def _fold(graph: fx.Graph, norm: Norm, producer: fx.Node, kernel: fx.Node, bias: Any) -> None:
    def op(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return insert(graph, producer, target, *args, **kwargs)

    def full(node: fx.Node) -> fx.Node:
        if node.meta["val"].dtype == torch.float32:
            return node
        return op(aten._to_copy.default, node, dtype=torch.float32)

    def back(node: fx.Node, use: str) -> fx.Node:
        dtype = kernel.meta["val"].dtype
        result = node if dtype == torch.float32 else op(aten._to_copy.default, node, dtype=dtype)
        result.meta["constant_use"] = use
        result.meta["constant_owner"] = str(kernel.target).removesuffix(".weight")
        return result

    with graph.inserting_before(producer):
        deviation = op(aten.rsqrt.default, op(aten.add.Scalar, full(norm.variance), norm.epsilon))
        scale = op(aten.mul.Tensor, full(norm.gamma), deviation) if norm.gamma else deviation
        shape, repeats = _by_output(producer)
        spread = op(aten.reshape.default, scale, shape)
        if repeats > 1:
            spread = op(aten.repeat_interleave.self_int, spread, repeats, 0)
        scaled = op(aten.mul.Tensor, full(kernel), spread)
        shifted = op(aten.neg.default, full(norm.mean))
        if bias is not None:
            shifted = op(aten.sub.Tensor, full(bias), full(norm.mean))
        shift = op(aten.mul.Tensor, shifted, scale)
        if norm.beta is not None:
            shift = op(aten.add.Tensor, shift, full(norm.beta))
        weight, offset = back(scaled, "weight_bn_folded"), back(shift, "bias_bn_folded")
    producer.args = (producer.args[0], weight, offset, *producer.args[3:])
    norm.output.replace_all_uses_with(producer)


def _by_output(producer: fx.Node) -> tuple[list[int], int]:
    """How numbers of the output channels are shaped, and each row repeated, to fit the kernel.

    A transposed kernel is (input channels, output channels of a group, ...).
    """
    kernel: Any = producer.args[1]
    first, second, *window = map(int, kernel.meta["val"].shape)
    rest = [1] * len(window)
    if producer.target is aten.linear.default or not producer.args[6]:
        return [first, 1, *rest], 1
    groups: Any = producer.args[8]
    return [groups, second, *rest], first // groups if groups > 1 else 1
