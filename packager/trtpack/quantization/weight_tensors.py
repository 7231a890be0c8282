# SPDX-License-Identifier: Apache-2.0
"""Lets torchao's quantized weights be captured as what they are: stored numbers and scales.

A layer over such a weight computes in torchao's own kernels, which multiply whole numbers. Within
``stored_weights`` it reads what its weight stands for, which is the same but for rounding:
``dequantize_*`` of ``quantized_decomposed``, or ``dequantize`` for E4M3. An activation of a fixed
scale is quantized before it. Weights whose activations find their scale while they run stay as they
are.

torchao is known by the names of its classes, so it is not imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .libraries import DEFINED_BY
from .operators import DEQUANTIZE

_LAYERS = frozenset(
    {
        functional.linear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        functional.embedding,
        torch.conv1d,
        torch.conv2d,
        torch.conv3d,
    }
)
_INT4 = (-8, 7)
_INT8 = (-128, 127)


@contextmanager
def stored_weights() -> Iterator[None]:
    """Within, layers over torchao's weights read what those stand for."""
    importlib.import_module(DEFINED_BY["quantized_decomposed"][0])
    with _StoredWeights():
        yield


class _StoredWeights(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _LAYERS:
            first = args[0] if args else given["input"]
            weight = args[1] if len(args) > 1 else given.get("weight")
            meant = _meant(weight)
            if meant is not None:
                rest, first = args[2:], _activation(first, weight)
                given.pop("input", None)
                given.pop("weight", None)
                args = (first, meant, *rest)
        return func(*args, **given)


def _meant(weight: Any) -> torch.Tensor | None:
    """What a weight stands for; None for a plain one, or one this does not know."""
    if not type(weight).__module__.startswith("torchao."):
        return None
    reader = _READERS.get(type(weight).__name__)
    return reader(weight) if reader else None


def _int8(weight: Any) -> torch.Tensor | None:
    scale = weight.act_quant_scale
    if weight.act_quant_kwargs is not None and (
        scale is None or scale.numel() != 1 or weight.act_quant_kwargs.reduce_range
    ):
        return None
    return _whole_numbers(weight, _INT8)


def _intx(weight: Any) -> torch.Tensor | None:
    if weight.activation_quantization is not None:
        return None
    bits = str(weight.target_dtype).removeprefix("torch.int")
    high = 2 ** (int(bits) - 1) - 1
    return _whole_numbers(weight, (-high - 1, high))


def _whole_numbers(weight: Any, limits: tuple[int, int]) -> torch.Tensor | None:
    """``dequantize_per_channel``, or ``..._group`` where a row has several scales."""
    stored, blocks, shape = weight.qdata, list(weight.block_size), list(weight.qdata.shape)
    scale, zero = weight.scale, weight.zero_point
    axes = [i for i, block in enumerate(blocks) if block != shape[i]]
    zero = torch.zeros_like(scale, dtype=torch.int64) if zero is None else zero
    quantized = torch.ops.quantized_decomposed
    answer: torch.Tensor
    if len(axes) < 2 and all(blocks[i] == 1 for i in axes):
        axis = axes[0] if axes else 0
        count = shape[axis]
        scale, zero = (t.reshape(-1).expand(count) for t in (scale, zero))
        answer = quantized.dequantize_per_channel(
            stored, scale.float(), zero, axis, *limits, torch.int8, out_dtype=weight.dtype
        )
        return answer
    if len(shape) == 2 and blocks[0] == 1:
        answer = quantized.dequantize_per_channel_group(
            stored, scale, zero, *limits, torch.int8, blocks[1], weight.dtype
        )
        return answer
    return None


def _float8(weight: Any) -> torch.Tensor | None:
    if weight.act_quant_kwargs is not None or weight.qdata.dtype != torch.float8_e4m3fn:
        return None
    shape, counts = list(weight.qdata.shape), list(weight.scale.shape)
    axes = [i for i, count in enumerate(counts) if count != 1]
    if len(axes) > 1 or (axes and counts[axes[0]] != shape[axes[0]]):
        return None
    axis = axes[0] if axes else None
    scale = weight.scale.float().reshape(-1 if axes else ())
    answer: torch.Tensor = DEQUANTIZE(weight.qdata, scale, axis, "FP8", weight.dtype)
    return answer


def _activation(x: torch.Tensor, weight: Any) -> torch.Tensor:
    """A layer's input as its weight wants it: scaled, then quantized with a fixed scale."""
    ahead = getattr(weight, "act_pre_scale", None)
    x = x if ahead is None else x * ahead
    scale = getattr(weight, "act_quant_scale", None)
    if scale is None:
        return x
    zero = weight.act_quant_zero_point
    zero = torch.zeros_like(scale, dtype=torch.int64) if zero is None else zero
    scale, zero = (t.reshape(()) for t in (scale.float(), zero))
    quantized = torch.ops.quantized_decomposed
    whole = quantized.quantize_per_tensor.tensor(x, scale, zero, *_INT8, torch.int8)
    answer: torch.Tensor = quantized.dequantize_per_tensor.tensor(
        whole, scale, zero, *_INT8, torch.int8, out_dtype=x.dtype
    )
    return answer


_READERS: Mapping[str, Any] = {
    "Int8Tensor": _int8,
    "IntxUnpackedToInt8Tensor": _intx,
    "Float8Tensor": _float8,
}
