# SPDX-License-Identifier: Apache-2.0
"""Loads sources, or what they say when they cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from torch import Tensor, nn

from trtpack.errors import ConfigError
from trtpack.inputs import parse_inputs
from trtpack.sources import Source, load_source
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor

CODE = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, features=4):
        super().__init__()
        self.fc = nn.Linear(3, features)
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x, scale=None):
        y = self.norm(self.fc(x))
        return y if scale is None else y * scale

def make_model():
    return Two()

def with_input():
    return Two(), torch.ones(2, 3)

def with_arguments():
    return Two(), (torch.ones(2, 3),), {"scale": torch.full((1,), 2.0)}

def with_dynamic():
    batch = torch.export.Dim("batch", min=1, max=8)
    return Two(), (torch.ones(2, 3),), {}, {"x": {0: batch}}

def raises():
    table = {}
    return table["missing"]

def stops():
    raise SystemExit(3)

def a_class():
    return Two

def nothing():
    pass

def wanting(features):
    return Two(features)

def on_meta():
    with torch.device("meta"):
        return Two()

def lazy():
    return nn.LazyLinear(3)

def scripted():
    return torch.jit.trace(nn.Linear(3, 3).eval(), torch.ones(1, 3))

class Fragile(nn.Module):
    def forward(self, x):
        return x @ x

def fragile():
    return Fragile()

CONSTANT = 3
"""


def line_of(text: str) -> int:
    """The line of ``CODE`` that holds ``text``."""
    return 1 + CODE[: CODE.index(text)].count("\n")


def load(model: Any, *inputs: str, **arguments: Any) -> Source:
    return load_source(model, inputs=parse_inputs(inputs), **arguments)


def refused(model: Any, *inputs: str, **arguments: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(model, *inputs, **arguments)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def save(path: Path, **tensors: Tensor) -> Path:
    """Writes ``.npz`` or ``.safetensors``; ``__`` in a name stands for a dot."""
    if path.suffix == ".npz":
        numpy.savez(path, **{name.replace("__", "."): t.numpy() for name, t in tensors.items()})
    else:
        named = [StoredTensor(name.replace("__", "."), t) for name, t in tensors.items()]
        write_safetensors(path, named)
    return path


def two() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


class Trap:
    """Pickled into a file, it would run code when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("sprung"),)
