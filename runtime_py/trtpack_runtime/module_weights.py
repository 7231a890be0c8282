# SPDX-License-Identifier: Apache-2.0
"""The original's parameters and buffers, by name, on a module that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from .errors import ConfigError
from .manifest import Weights
from .state_slots import StateSlots


def register_weights(
    root: torch.nn.Module,
    weights: Weights,
    stored: Mapping[str, torch.Tensor],
    states: Mapping[str, torch.Tensor],
    made: dict[str, torch.nn.Parameter],
) -> None:
    """Registers the original's names; tied parameters stay one tensor, state stays the tensor that
    calls change. ``made`` are the parameters by what is stored: they stay the objects that they
    are, also those that the user put in their place, and gain what is missing."""
    for name, source in weights.parameters.items():
        registered = _owner(root, name)._parameters.get(_last(name))
        if registered is not None:
            made[source] = registered
    for source in dict.fromkeys(weights.parameters.values()):
        own, value = made.get(source), stored[source]
        if own is None or not torch._has_compatible_shallow_copy_type(own, value):
            made[source] = torch.nn.Parameter(value, requires_grad=False)
        elif own.data_ptr() != value.data_ptr():
            own.data = value
    for name, source in weights.parameters.items():
        _owner(root, name)._parameters[_last(name)] = made[source]
    for name, source in weights.buffers.items():
        if name not in states:
            _owner(root, name)._buffers[_last(name)] = stored[source]
    for name, value in states.items():
        register_state(root, weights, name, value)


def register_state(root: torch.nn.Module, weights: Weights, name: str, value: torch.Tensor) -> None:
    """Registers a state as a buffer; one that the original does not save is not saved here."""
    owner, last = _owner(root, name), _last(name)
    owner._buffers[last] = value
    if name not in weights.buffers:
        owner._non_persistent_buffers_set.add(last)


def state_buffer(root: torch.nn.Module, name: str) -> torch.Tensor:
    """A state as the module holds it now: while a program is exported, a tensor without values."""
    module = root
    for part in name.split(".")[:-1]:
        module = module._modules[part]  # type: ignore[assignment]  # a state has an owner
    value = module._buffers[name.rpartition(".")[2]]
    assert value is not None
    return value


def keep_state(module: torch.nn.Module, incompatible: object) -> None:
    """Takes over state that ``load_state_dict(assign=True)`` put in place of the module's."""
    state: StateSlots = module.__dict__["_state"]
    with state.lock, torch.inference_mode(False), torch.no_grad():
        for name, value in list(state.values.items()):
            given = state_buffer(module, name)
            if given is not value:
                state.replace(name, given.detach().clone())


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
