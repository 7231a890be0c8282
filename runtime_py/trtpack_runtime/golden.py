# SPDX-License-Identifier: Apache-2.0
"""A method's calls as its golden samples have them: the inputs, and the state before."""

from __future__ import annotations

import torch

from .dtypes import DTYPES
from .errors import ConfigError
from .module import BundleModule
from .smoke import Sample, golden_samples


def sample_inputs(module: BundleModule, method: str, number: int = 0) -> list[torch.Tensor]:
    """A golden sample's inputs in order, where the module runs; of a method without samples zeros
    of its best shapes.

    Raises:
        ConfigError: there is no such method or sample.
    """
    sample, described = _sample(module, method, number), module.bundle.manifest.methods[method]
    if sample is not None:
        return list(sample.inputs)
    return [
        torch.zeros(
            spec.opt or [size if isinstance(size, int) else 1 for size in spec.shape],
            dtype=getattr(torch, DTYPES[spec.dtype].torch),
            device=module.device,
        )
        for spec in described.inputs
    ]


def sample_state(module: BundleModule, method: str, number: int = 0) -> dict[str, torch.Tensor]:
    """The state that a golden sample begins with, as ``BundleModule.reset`` takes it: the slots
    that do not have their first values; raises as ``sample_inputs``."""
    sample = _sample(module, method, number)
    return {} if sample is None else dict(sample.before)


def _sample(module: BundleModule, method: str, number: int) -> Sample | None:
    module.method(method)
    samples = golden_samples(module.bundle, module.bundle.manifest.methods[method], module.device)
    if number < len(samples):
        return samples[number]
    if samples or number:
        raise ConfigError(
            f"there is no golden sample {number}, {method}() has {len(samples)}",
            hint="count from 0",
        )
    return None
