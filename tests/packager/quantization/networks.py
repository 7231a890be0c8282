# SPDX-License-Identifier: Apache-2.0
"""Quantized modules as networks, held to eager PyTorch through the evaluator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

from tests.packager.converters.engine import build
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import double
from trtpack.capture import capture
from trtpack.convert import ConvertedSegment, convert
from trtpack.lowering import lower
from trtpack.partition import partition
from trtpack.target import find_target
from trtpack_runtime import reference

MOST = 1e-3
"""The relative L2 distance of a network to the model it was made of."""
EVERY = {
    "8.6": "orin@jetpack-6.0",
    "10.3": "orin@jetpack-6.2",
    "10.16": "orin@jetpack-7.2",
    "11.1": "l4@tensorrt-11.4",
}
"""A release and a target that has it."""

T = torch.Tensor


@dataclass(frozen=True)
class Made:
    """A network made of a module, and what it answered."""

    segment: ConvertedSegment
    answers: list[T]
    effects: Mapping[str, int]

    @property
    def kinds(self) -> Counter[str]:
        """Layer kinds, those of quantization with the type they answer or read."""
        return Counter(
            f"{layer.kind} {self._few(layer.kind, layer)}".strip()
            for layer in self.segment.network.layers
        )

    def scales(self) -> list[T]:
        """The scale of every layer of quantization, in order, each constant once."""
        names = [
            str(layer.operands["scale"])
            for layer in self.segment.network.layers
            if layer.kind in ("quantize", "dequantize")
        ]
        return [self.value(name) for name in dict.fromkeys(names)]

    def value(self, name: str) -> T:
        """A constant's value."""
        constant = self.segment.network.constants[name]
        return self.segment.constants[constant.data].reshape(constant.shape)

    def weights(self) -> list[str]:
        """The types of the constants that layers of quantization read, in order."""
        network = self.segment.network
        read = [
            str(layer.operands["input"])
            for layer in network.layers
            if layer.kind in ("quantize", "dequantize")
        ]
        return [network.constants[n].dtype for n in read if n in network.constants]

    def built(self) -> int:
        """The bytes of its engine, built by the real TensorRT-RTX for SM 8.9."""
        return build(self.segment).nbytes

    def _few(self, kind: str, layer: Any) -> str:
        if kind == "quantize":
            return str(layer.attributes["output_type"])
        if kind == "dequantize":
            return self.segment.network.tensor(layer.operands["input"]).dtype
        return ""


def made(
    module: nn.Module | Callable[..., Any],
    *args: T,
    target: str = "rtx-4090",
    dynamic: Any = None,
    most: float = MOST,
) -> Made:
    """Makes one network of a whole module; it has to answer what the module does."""
    model = module if isinstance(module, nn.Module) else _Function(module)
    with torch.no_grad():
        want = model(*args)
    found = find_target(target)
    captured = capture(model, args, dynamic_shapes=dynamic)
    lowered = lower(captured)
    plan = partition(captured.graph_module, found)
    assert [s.kind for s in plan.segments] == ["tensorrt"], plan.refusals
    segment = convert(captured.graph_module, found, captured.ranges, lowered.recipes)
    names = [tensor.name for tensor in segment.network.inputs]
    given = dict(zip(names, args, strict=True))
    answers = reference.evaluate(segment.network, segment.constants, given)
    for have, wanted in zip(answers, [want] if isinstance(want, T) else want, strict=True):
        distance = (have.double() - wanted.double()).norm() / wanted.double().norm()
        assert have.dtype == wanted.dtype
        assert float(distance) <= most, f"relative L2 {float(distance):.3g}"
    return Made(segment, answers, lowered.effects)


def refusals(module: nn.Module | Callable[..., Any], *args: T, target: str) -> list[str]:
    """Why operators of a module stay in PyTorch."""
    model = module if isinstance(module, nn.Module) else _Function(module)
    captured = capture(model, args)
    lower(captured)
    plan = partition(captured.graph_module, find_target(target))
    return [f"{refusal.op}: {refusal.reason}" for refusal in plan.refusals]


def emitted_everywhere(module: nn.Module | Callable[..., Any], *args: T) -> dict[str, Made]:
    """The network for a target of every release, which that release's double has taken."""
    found = {}
    for release, target in EVERY.items():
        found[release] = made(module, *args, target=target)
        segment = found[release].segment
        emitted(double(release), segment.network, bytes_of(segment.constants))
    return found


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: T) -> Any:
        return self.function(*inputs)
