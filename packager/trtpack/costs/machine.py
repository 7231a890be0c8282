# SPDX-License-Identifier: Apache-2.0
"""A target's rates and overheads, each with where it comes from.

Predictions order divisions of one model on one target; as latencies they are rough. What all
divisions have in common, such as the operations of a convolution, only sets the scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..target import Target

_HALF = (torch.float16, torch.bfloat16)
_FLOAT32_PART = 1 / 16
"""Of the rate in float16: 19.5 of 312 TFLOPS. Source: NVIDIA A100 datasheet, FP32 and FP16 Tensor
Core without sparsity."""
_NO_FACTS = (320.0, 65.0)
"""GB/s and float16 TFLOPS where no source says a device's. Source: NVIDIA T4 datasheet, the slowest
GPU of the catalogue that has both."""


@dataclass(frozen=True)
class Machine:
    """Rates in units per microsecond, overheads in microseconds.

    ``engine_us`` and ``compiled_us`` are what a call of a TensorRT engine and of a segment that
    AOTInductor compiled takes besides its work; ``eager_us`` one operator in PyTorch, ``view_us``
    a view there. A kernel of TensorRT takes ``kernel_us`` at the least, one in a segment that
    AOTInductor compiled ``torch_kernel_us``. ``value_us`` is what each tensor adds that crosses
    into or out of a compiled segment. PyTorch takes ``torch_products`` times as long as TensorRT
    for products of matrices and convolutions, and ``channels_last`` times that where it compiles a
    light convolution (``work.Work``).
    """

    bytes_per_us: float
    flops_per_us: float  # float32
    half_flops_per_us: float
    engine_us: float
    compiled_us: float
    eager_us: float
    view_us: float
    kernel_us: float
    torch_kernel_us: float
    value_us: float
    torch_products: float
    channels_last: float

    def flops_rate(self, dtype: torch.dtype) -> float:
        """Operations a microsecond in a type."""
        return self.half_flops_per_us if dtype in _HALF else self.flops_per_us


CPU = Machine(
    bytes_per_us=11_000.0,
    flops_per_us=136_000.0,
    half_flops_per_us=136_000.0,
    engine_us=0.0,  # there is no TensorRT
    compiled_us=4.0,
    eager_us=1.8,
    view_us=2.1,
    kernel_us=0.0,
    torch_kernel_us=0.0,
    value_us=1.3,
    torch_products=1.0,
    channels_last=0.9,
)
"""One core of an x86 server with AVX-512. Source: measured by ``scripts/measure_costs``, of
``compiled_us`` and ``value_us`` twice that: it calls one function again and again, while a call
between others finds less in the caches, and a segment that gains next to nothing is none.
``channels_last``: docs/benchmarks/partition.md, espcn_superres, three convolutions and little else,
takes PyTorch 1.17 times as long as AOTInductor, of which a part is what it fuses."""

GPU = Machine(
    bytes_per_us=_NO_FACTS[0] * 1e3,
    flops_per_us=_NO_FACTS[1] * 1e6 * _FLOAT32_PART,
    half_flops_per_us=_NO_FACTS[1] * 1e6,
    engine_us=23.8,
    compiled_us=CPU.compiled_us,
    eager_us=16.7,
    view_us=CPU.view_us,
    kernel_us=5.0,
    torch_kernel_us=9.3,
    value_us=CPU.value_us,
    torch_products=1.33,
    channels_last=1.0,
)
"""What a host with a GPU takes, rates aside. Sources, all on one H200:

- ``engine_us``: ``scripts/gpu_runtime_bench overhead``, "three segments": a module of two engines
  with an operation between them takes 66.5 µs, the operation alone 18.8 µs.
- ``eager_us``: docs/benchmarks/tensorrt.md, eager at batch 1: ResNet-50 has 106 operators more than
  ResNet-18 and takes 1.77 ms longer.
- ``kernel_us``: the same page, TensorRT: 36 convolutions more take 0.18 ms longer, work included.
- ``torch_kernel_us``: docs/benchmarks/runtime.md, AOTInductor: MobileNetV3 is compiled to 92
  kernels more than BERT and takes 0.85 ms longer, work included.
- ``torch_products``: the same page, ResNet-50 at batch 32: 1.577 ms with "reduce-overhead", which
  has no launches to wait for, and 1.184 ms with TensorRT.
- ``compiled_us``, ``view_us``, ``value_us``: the host's part, as on a CPU.
- ``channels_last``: not measured.
"""


def machine_of(target: Target) -> Machine:
    """The rates and overheads that predictions for a target are made of."""
    if target.sm is None:
        return CPU
    gbps = target.peak.memory_gbps or _NO_FACTS[0]
    tflops = target.peak.fp16_tflops or _NO_FACTS[1]
    return replace(
        GPU,
        bytes_per_us=gbps * 1e3,
        flops_per_us=tflops * 1e6 * _FLOAT32_PART,
        half_flops_per_us=tflops * 1e6,
    )
