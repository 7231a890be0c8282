# SPDX-License-Identifier: Apache-2.0
"""A module of the user's that is built from stays as it was, and so does what is drawn next."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_OF_TORCH = ".*isinstance.treespec, LeafSpec"
"""What torch.export warns of in its own code."""


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Puts back what a build changes of the random generators, and of a module: its mode, its
    device and type, and which parameters need gradients. Values that it sets on request, as
    ``liven`` does, stay set.

    ``model`` is what ``trtpack.build`` takes; only a module in it is looked at.
    """
    numbers = sys.modules.get("numpy")
    drawn = random.getstate(), None if numbers is None else numbers.random.get_state()
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=()),
            _module_as_it_was(model),
        ):
            warnings.filterwarnings("ignore", _OF_TORCH, FutureWarning)
            yield
    finally:
        random.setstate(drawn[0])
        if numbers is not None:
            numbers.random.set_state(drawn[1])


@contextmanager
def _module_as_it_was(model: Any) -> Iterator[None]:
    module = model[0] if isinstance(model, tuple) and model else model
    if not isinstance(module, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    tensors = [(p, p.data, p.requires_grad) for p in module.parameters() if not is_lazy(p)]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for parameter, data, needs_gradient in tensors:
                if parameter.data.dtype != data.dtype or parameter.device != data.device:
                    parameter.data = data
                parameter.requires_grad_(needs_gradient)
        for part, known in buffers:
            for name, buffer in known.items():
                now = part._buffers.get(name)
                if now is None or buffer is None:
                    continue
                if now.dtype != buffer.dtype or now.device != buffer.device:
                    part._buffers[name] = buffer
