# SPDX-License-Identifier: Apache-2.0
"""The original's parameters and buffers, by name, on a module that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from .errors import ConfigError
from .manifest import Weights


def register_weights(
    root: torch.nn.Module,
    weights: Weights,
    stored: Mapping[str, torch.Tensor],
    states: Mapping[str, torch.Tensor],
) -> None:
    """Registers the original's names; tied parameters stay one tensor, state stays the tensor that
    calls change."""
    made: dict[str, torch.nn.Parameter] = {}
    for name, source in weights.parameters.items():
        if source not in made:
            made[source] = torch.nn.Parameter(stored[source], requires_grad=False)
        _owner(root, name)._parameters[_last(name)] = made[source]
    for name, source in weights.buffers.items():
        register_buffer(root, name, states[name] if name in states else stored[source])


def register_buffer(root: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Registers a buffer under a name with dots."""
    _owner(root, name)._buffers[_last(name)] = value


def destination(
    fn: Callable[[torch.Tensor], torch.Tensor],
    tensors: Iterable[torch.Tensor],
    device: torch.device,
) -> torch.device:
    """Where ``fn`` moves tensors; ConfigError if it changes their type."""
    target = device
    for dtype in {tensor.dtype for tensor in tensors} or {torch.float32}:
        probe = fn(torch.empty(0, dtype=dtype, device=device))
        if probe.dtype != dtype:
            names = [str(t).removeprefix("torch.") for t in (dtype, probe.dtype)]
            raise ConfigError(
                f"cannot turn the {names[0]} weights of a bundle into {names[1]}",
                hint=f"build it with --dtype {names[1]}",
            )
        target = probe.device
    return target


def _owner(root: torch.nn.Module, name: str) -> torch.nn.Module:
    """The module that holds ``name``, made where it is missing.

    Written past ``add_module``: an original's name may be one of this class's own.
    """
    module = root
    for part in name.split(".")[:-1]:
        child = module._modules.get(part)
        if child is None:
            child = module._modules[part] = torch.nn.Module().eval()
        module = child
    return module


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def is_same(own: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether two tensors are equal in type, shape and every element, wherever they are."""
    return own.shape == given.shape and own.dtype == given.dtype and torch.equal(
        own, given.to(own.device)
    )  # fmt: skip
