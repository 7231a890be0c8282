# SPDX-License-Identifier: Apache-2.0
"""A model's buffers, which calls of it may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def unchanged_buffers(
    module: nn.Module, but: Callable[[nn.Module], bool] = lambda owner: False
) -> Iterator[None]:
    """Gives buffers that were written, or replaced by other tensors, their values back; not those
    of the modules that ``but`` is true of."""
    kept = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        if not but(owner)
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, value in kept:
                owner._buffers[name] = buffer
                buffer.copy_(value)
