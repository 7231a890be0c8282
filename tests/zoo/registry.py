# SPDX-License-Identifier: Apache-2.0
"""How a model of the zoo is declared, and the pieces several of them share.

A builder returns (model, example inputs, dynamic shapes or None); dynamic shapes is a tuple with one
entry per example input, as torch.export.export takes it. Example inputs have batch 2, so that nothing is
specialised to 1. Every model is offline and randomly initialised, in eval mode, float32 on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from trtpack.sources.torchvision_ops import import_torchvision

tv = import_torchvision()

Built = tuple[nn.Module, tuple[Any, ...], "tuple[Any, ...] | None"]


@dataclasses.dataclass(frozen=True)
class Spec:
    name: str
    family: str  # cnn, dense, detect, text, vit, speech, gen, rec, rl, hpc, seq, misc
    source: str  # torchvision, timm, transformers, own (written for this zoo)
    torchbench: bool  # stands for a TorchBench inference model
    build: Callable[[], Built]
    note: str = ""


REGISTRY: dict[str, Spec] = {}


def model(
    name: str, family: str, source: str, torchbench: bool = False, note: str = ""
) -> Callable[[Callable[[], Any]], Callable[[], Built]]:
    def register(make: Callable[[], Any]) -> Callable[[], Built]:
        def build() -> Built:
            torch.manual_seed(0)
            module, args, dynamic = make()
            return module.eval().requires_grad_(False), tuple(args), dynamic

        assert name not in REGISTRY, name
        REGISTRY[name] = Spec(name, family, source, torchbench, build, note)
        return build

    return register


def B():
    """The dynamic batch dimension (example inputs use batch 2, so that nothing is specialised to 1)."""
    return Dim("batch", min=1, max=16)


def batched(n=1):
    b = B()
    return tuple({0: b} for _ in range(n))


def img(b=2, c=3, h=224, w=None):
    return torch.randn(b, c, h, w or h)


def ids(b=2, s=64, vocab=1000):
    return torch.randint(4, vocab, (b, s))


class Pick(nn.Module):
    """Bind a transformers model's keyword inputs to positions and return plain tensors."""

    def __init__(self, m, names, outs=("last_hidden_state",), **fixed):
        super().__init__()
        self.m, self.names, self.outs, self.fixed = m, names, outs, fixed

    def forward(self, a, b=None, c=None, d=None):
        kw = dict(zip(self.names, (a, b, c, d)))
        o = self.m(**kw, **self.fixed, return_dict=True)
        r = tuple(getattr(o, k) for k in self.outs)
        return r[0] if len(r) == 1 else r


def conv_bn(i, o, k=3, s=1, p=None, act=nn.ReLU, g=1, d=1):
    layers = [
        nn.Conv2d(i, o, k, s, k // 2 * d if p is None else p, dilation=d, groups=g, bias=False),
        nn.BatchNorm2d(o),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


def hf(name, family, tb, mk, outs=("last_hidden_state",), note=""):
    """mk() -> (transformers model, {keyword: example tensor}, fixed keywords)."""

    @model(name, family, "transformers", tb, note)
    def _():
        m, ins, fixed = mk()
        return Pick(m, list(ins), outs, **fixed), tuple(ins.values()), batched(len(ins))


def mask(b=2, s=64):
    m = torch.ones(b, s, dtype=torch.int64)
    m[1, s // 2 :] = 0
    return m
