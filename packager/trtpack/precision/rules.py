# SPDX-License-Identifier: Apache-2.0
"""What every ATen operator needs of the type it computes in.

*Products* gain most from a small type, and hardware sums them widely. *Sensitive* operators lose
what matters in one: sums of many numbers, and functions that grow or fall faster than float16
follows. *Free* ones compute in either, as their neighbours do. All others keep the model's type.

Source: PyTorch's own lists (``torch/csrc`` and "Autocast Op Reference"), and NVIDIA's advice for
strongly typed networks ("Working with Quantized Types", TensorRT 10).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import fx
from torch._ops import OpOverload

Need = Literal["product", "sensitive", "free", "other"]

FEW = 256
"""So many numbers may be summed in a small type; more are a large reduction."""

# fmt: off
_PRODUCTS = frozenset((
    "linear", "matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "addbmm", "baddbmm", "einsum",
    "convolution", "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu",
))
_NORMS = frozenset((
    "layer_norm", "group_norm", "instance_norm", "rms_norm", "native_layer_norm",
    "native_group_norm", "_native_batch_norm_legit",
    "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm",
))
_EXPONENTIALS = frozenset((
    "softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", "logsumexp",
    "logcumsumexp", "logaddexp", "logaddexp2", "log_sigmoid", "log_sigmoid_forward", "softplus",
    "exp", "exp2", "expm1", "pow", "log", "log2", "log10", "log1p", "xlogy", "reciprocal", "rsqrt",
    "cosh", "sinh", "tan", "acos", "asin", "acosh", "asinh", "atanh", "erfinv", "lgamma",
    "digamma",
))
_SUMS = frozenset((
    "prod", "cumsum", "cumprod", "dist", "index_add",
    "scatter_add", "scatter_reduce", "index_reduce", "_embedding_bag", "col2im",
    "_embedding_bag_forward_only",
))
_COORDINATES = frozenset(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "sin", "cos"))
_LOSSES = frozenset((
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "nll_loss", "nll_loss_forward",
    "cross_entropy_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits",
))
_MEANS = frozenset((
    "sum", "mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
))
_WIDE_ONLY = frozenset(("avg_pool3d", "_cdist_forward", "_pdist_forward", "polygamma"))
_FREE = frozenset((
    "fake_quantize", "dequantize",  # their scales keep their type
    "batch_norm", "_native_batch_norm_legit_no_training",  # by now a factor and a term
    "abs", "add", "addcdiv", "addcmul", "alias", "amax", "amin", "atan", "atan2", "broadcast_to",
    "cat", "ceil", "celu", "channel_shuffle", "chunk", "clamp", "clamp_max", "clamp_min", "clone",
    "constant_pad_nd", "contiguous", "copysign", "diagonal", "div", "elu", "embedding", "erf",
    "erfc", "expand", "flatten", "flip", "floor", "fmax", "fmin", "frac", "gather", "gelu", "glu",
    "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "im2col", "index", "index_copy",
    "index_put", "index_select", "leaky_relu", "lerp", "masked_fill", "max", "max_pool1d",
    "max_pool2d", "max_pool2d_with_indices", "max_pool3d", "max_pool3d_with_indices", "maximum",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "min", "minimum", "mish",
    "movedim", "mul", "narrow", "neg", "permute", "pixel_shuffle", "pixel_unshuffle", "prelu",
    "_prelu_kernel", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "relu", "relu6",
    "repeat", "replication_pad1d", "replication_pad2d", "replication_pad3d", "reshape", "roll",
    "rotary_embedding", "round", "rsub", "scatter", "select", "select_scatter", "selu", "sigmoid",
    "sign", "silu", "slice", "slice_scatter", "softshrink", "split", "split_with_sizes", "sqrt",
    "square", "squeeze", "stack", "sub", "t", "tanh", "threshold", "transpose", "tril", "triu",
    "trunc", "unbind", "unflatten", "unfold", "unsqueeze", "upsample_bicubic2d",
    "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d", "_unsafe_view", "view", "where",
))
ANGLES = {"sin": 0, "cos": 0, "grid_sampler": 1, "grid_sampler_2d": 1, "grid_sampler_3d": 1}
"""Operators that take angles or coordinates, and at which place."""
MOVES = frozenset((
    "alias", "broadcast_to", "cat", "chunk", "clone", "contiguous", "diagonal", "expand", "flatten",
    "flip", "movedim", "narrow", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape",
    "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t", "transpose",
    "unbind", "unflatten", "unsqueeze", "_unsafe_view", "view",
))
"""Operators that only move numbers, or leave some out."""
# fmt: on

_REASONS = (
    (_NORMS, "a norm: statistics over many numbers"),
    (_EXPONENTIALS, "grows or falls faster than a small type follows"),
    (_SUMS, "sums or multiplies as many numbers as there are"),
    (_COORDINATES, "computes with coordinates or angles"),
    (_LOSSES, "a loss"),
)


def need(node: fx.Node) -> tuple[Need, str]:
    """What an operator needs, and why, as the table tells it."""
    name = packet(node.target)
    if name is None:
        return "other", "no operator of PyTorch's"
    if name in _PRODUCTS:
        return "product", "a product"
    for names, reason in _REASONS:
        if name in names:
            return "sensitive", reason
    if name == "batch_norm" and _is_training(node):
        return "sensitive", _REASONS[0][1]
    if name in _MEANS:
        count = _summed(node)
        if count > FEW:
            return "sensitive", f"a large reduction, of {count:.0f} numbers"
        return "free", "a small reduction"
    if name in _WIDE_ONLY:
        return "other", "PyTorch has it in no small type on CPUs"
    return ("free", "") if name in _FREE else ("other", "no rule knows it to be safe")


def packet(target: object) -> str | None:
    """``softmax`` of ``aten.softmax.int``; None for what is no operator of PyTorch's or ours."""
    if not isinstance(target, OpOverload) or target.namespace not in ("aten", "trtpack"):
        return None
    return str(target._schema.name.rpartition("::")[2])


def numbers(node: fx.Node) -> list[float]:
    """The numbers an operator computes with, written as such where it takes a tensor too."""
    if not isinstance(node.target, OpOverload):
        return []
    schema = node.target._schema.arguments
    named = {argument.name: str(argument.type) for argument in schema}
    given = {a.name: v for a, v in zip(schema, node.args, strict=False)} | dict(node.kwargs)
    return [
        float(value)
        for name, value in given.items()
        if name not in ("eps", "momentum")  # beside statistics, which are summed in float32
        and any(kind in named.get(name, "") for kind in ("number", "float", "Tensor"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]


def _is_training(node: fx.Node) -> bool:
    """Whether a batch norm computes statistics."""
    return bool(node.args[5] if len(node.args) > 5 else node.kwargs.get("training", False))


def _summed(node: fx.Node) -> float:
    """How many numbers a reduction makes one of, at the sizes it was captured with."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return _count(source.meta["val"]) / max(_count(node.meta["val"]), 1)


def _count(value: torch.Tensor) -> int:
    total = 1
    for size in value.shape:
        total *= int(size.node.hint or 1) if isinstance(size, torch.SymInt) else size
    return total
