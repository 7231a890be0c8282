# SPDX-License-Identifier: Apache-2.0
"""Inputs of a method as its golden samples have them."""

from __future__ import annotations

import torch

from .dtypes import DTYPES
from .errors import ConfigError
from .module import BundleModule
from .smoke import golden_samples


def sample_inputs(module: BundleModule, method: str, number: int = 0) -> list[torch.Tensor]:
    """A golden sample's inputs in order, where the module runs; of a method without samples zeros
    of its best shapes.

    Raises:
        ConfigError: there is no such method or sample.
    """
    module.method(method)
    described = module.bundle.manifest.methods[method]
    samples = golden_samples(module.bundle, described, module.device)
    if samples or number:
        if number >= len(samples):
            raise ConfigError(
                f"there is no golden sample {number}, {method}() has {len(samples)}",
                hint="count from 0",
            )
        return list(samples[number].inputs)
    return [
        torch.zeros(
            spec.opt or [size if isinstance(size, int) else 1 for size in spec.shape],
            dtype=getattr(torch, DTYPES[spec.dtype].torch),
            device=module.device,
        )
        for spec in described.inputs
    ]
