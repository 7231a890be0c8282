# SPDX-License-Identifier: Apache-2.0
"""Lets modules with fake quantizers be captured.

Such modules look at their own switches and ranges while they run, which tracing cannot follow.
Within ``fixed_fake_quantizers`` each does what it will do with what it has now:

- ``FakeQuantize`` and its like of ``torch.ao.quantization`` and of torchao's PT2E: ATen's
  operators;
- ``TensorQuantizer`` of NVIDIA ModelOpt: ModelOpt's own operator, and ``fake_quantize`` for weights
  in blocks. Ranges of no size count as ModelOpt's exporters count them, with a scale of 1.

PyTorch has no shapes of ATen's fake quantizing operators where sizes are open; within there are.
Other libraries are known by the names of their classes, so none is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._decomp import decomposition_table

from trtpack.errors import CaptureError

from .operators import FAKE_QUANTIZE

aten = torch.ops.aten
_MASKED = (
    aten.fake_quantize_per_tensor_affine_cachemask.default,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
)
_LEAST_RANGE = 2.0**-24
"""What ModelOpt takes as a range of no size."""


@contextmanager
def fixed_fake_quantizers(module: Any) -> Iterator[None]:
    """Within, fake quantizers of a module can be traced; exported programs have none.

    Raises:
        CaptureError: one still observes ranges, saw nothing but zeros, or rounds to FP4.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(decomposition_table, dict.fromkeys(_MASKED, _shapes)))
        for name, part in module.named_modules() if isinstance(module, nn.Module) else ():
            for known in type(part).__mro__:
                place = f"{known.__module__.partition('.')[0]}.{known.__name__}"
                if place in _FIXED:
                    for method, function in _FIXED[place](name, part).items():
                        stack.enter_context(mock.patch.object(part, method, function))
                    break
        yield


def _shapes(x: torch.Tensor, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _torch_ao(name: str, part: Any) -> dict[str, Callable[..., Any]]:
    if bool(part.observer_enabled.any()):
        raise CaptureError(
            f"the fake quantizer {name} still observes, so its scale follows every input",
            hint="call model.apply(torch.ao.quantization.disable_observer) once it is trained",
        )
    return {"forward": partial(_fake_quantized, part) if part.fake_quant_enabled.all() else _same}


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _fake_quantized(part: Any, x: torch.Tensor) -> torch.Tensor:
    low, high = part.activation_post_process.quant_min, part.activation_post_process.quant_max
    if part.is_per_channel:
        return torch.fake_quantize_per_channel_affine(
            x, part.scale, part.zero_point, part.ch_axis, low, high
        )
    return torch.fake_quantize_per_tensor_affine(x, part.scale, part.zero_point, low, high)


def _modelopt(name: str, part: Any) -> dict[str, Callable[..., Any]]:
    """Its integers and E4M3 with a fixed range; all else is traced as it is."""
    amax = getattr(part, "_amax", None)
    is_on = part._if_quant and not part._disabled and part._fake_quant and part.backend is None
    if is_on and part._num_bits == (2, 1):
        raise CaptureError(
            f"the quantizer {name} rounds to FP4 (E2M1), for which networks here have no type yet: "
            "PyTorch does not compute with it, so nothing could be held to its numbers",
            hint="quantize to INT8, FP8 or INT4",
        )
    if not is_on or part._if_calib or not isinstance(amax, torch.Tensor) or part.bias is not None:
        return {}
    if amax.numel() == 1 and not bool(amax > _LEAST_RANGE):
        raise CaptureError(
            f"the quantizer {name} has a range of no size: calibration showed it zeros only",
            hint="calibrate with inputs that reach it, or disable it",
        )
    blocks, some = part.block_sizes, not bool((amax > _LEAST_RANGE).all())
    fixed = blocks is None or part.is_static_block_quant
    if not fixed or part._num_bits not in (4, 8, (4, 3)):
        return {}
    whole = part.pre_quant_scale is None and not part.rotate_is_enabled
    whole = whole and not part._unsigned and not hasattr(part, "_padding")
    if blocks is not None and part._num_bits == 4 and whole:
        sizes = {axis: size for axis, size in blocks.items() if isinstance(axis, int)}
        if list(sizes) == [-1]:
            return {"forward": partial(_in_blocks, part, some, sizes[-1])}
    return {"_fake_quantize": partial(_limited, part, some)}


def _limited(part: Any, some: bool, inputs: torch.Tensor) -> torch.Tensor:
    bits, exponent = (8, 4) if part._num_bits == (4, 3) else (part._num_bits, 0)
    limit = _limit(part, some, part.maxbound)
    signs = bool(part._unsigned), bool(part._narrow_range)
    answer: torch.Tensor = torch.ops.tensorrt.quantize_op(inputs, limit, bits, exponent, *signs)
    return answer


def _in_blocks(part: Any, some: bool, size: int, inputs: torch.Tensor) -> torch.Tensor:
    shape = (*inputs.shape[:-1], inputs.shape[-1] // size)
    scale = (_limit(part, some, 7.0) / 7).reshape(shape)
    if part._narrow_range:
        least = scale.repeat_interleave(size, -1) * -7
        inputs = torch.maximum(inputs, least.to(inputs.dtype))
    answer: torch.Tensor = FAKE_QUANTIZE(inputs, scale, inputs.dim() - 1, "INT4")
    return answer


def _limit(part: Any, some: bool, bound: float) -> torch.Tensor:
    """Its ranges; where ``some`` have no size, those are as large as a scale of 1 makes them."""
    limit: torch.Tensor = part._amax.detach().float()
    return torch.where(limit > _LEAST_RANGE, limit, bound) if some else limit


_FIXED: dict[str, Callable[[str, Any], dict[str, Callable[..., Any]]]] = {
    "torch.FakeQuantizeBase": _torch_ao,
    "torchao.FakeQuantizeBase": _torch_ao,
    "modelopt.TensorQuantizer": _modelopt,
}
