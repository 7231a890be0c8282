# SPDX-License-Identifier: Apache-2.0
"""The state of one loaded module: tensors that calls change, which all its methods share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .input_shapes import check_state

Move = Callable[[torch.Tensor], torch.Tensor]
OnReplaced = Callable[[str, torch.Tensor], None]


class StateSlots:
    """Named tensors, updated in place so that their memory stays where it is.

    A call that changes state holds ``lock`` from its first to its last step, so calls from several
    threads come one after the other, on the GPU too. In which order is for the callers to say.
    """

    def __init__(
        self, initial: Mapping[str, torch.Tensor], device: torch.device, on_replaced: OnReplaced
    ) -> None:
        """Begins with copies of the slots' first values.

        ``on_replaced``, a method, is told of a tensor that takes the place of another, as one of a
        new size does.
        """
        self._initial, self._device = dict(initial), device
        self._on_replaced = weakref.WeakMethod(on_replaced)  # its owner owns this
        with torch.inference_mode(False), torch.no_grad():  # to be written to outside of it, too
            self.values = {name: value.to(device, copy=True) for name, value in initial.items()}
        self.lock = threading.RLock()
        self._last_stream: Any = None

    def tensors(self, names: Sequence[str]) -> list[torch.Tensor]:
        """The present values, ready on the caller's stream; ``lock`` is held."""
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device)
            if self._last_stream is not None and self._last_stream != stream:
                stream.wait_stream(self._last_stream)
            self._last_stream = stream
        return [self.values[name] for name in names]

    def keep(self, names: Sequence[str], values: Sequence[torch.Tensor]) -> None:
        """Takes new values over, in the old ones' memory where they are of one size; ``lock`` is
        held."""
        for name, value in zip(names, values, strict=True):
            old = self.values[name]
            if old.shape == value.shape:
                old.copy_(value)
            else:
                with torch.inference_mode(False), torch.no_grad():
                    self.replace(name, value.clone())

    def reset(self, given: Mapping[str, torch.Tensor]) -> None:
        """Puts every slot back to its first value, or to a given one.

        Raises:
            InputMismatchError: what is given is no tensor, or of another shape than the first one.
        """
        for name, value in given.items():
            check_state(name, self._initial[name].shape, value, torch.Tensor)
        with self.lock, torch.no_grad():
            names = list(self._initial)
            types = [value.dtype for value in self.tensors(names)]
            values = [given.get(name, self._initial[name]) for name in names]
            moved = [v.to(self._device, kind) for v, kind in zip(values, types, strict=True)]
            self.keep(names, moved)

    def move(self, move: Move, device: torch.device) -> None:
        """Moves every slot to a device."""
        with self.lock, torch.inference_mode(False), torch.no_grad():
            self.values = {name: move(value) for name, value in self.values.items()}
            self._initial = {name: value.to(device) for name, value in self._initial.items()}
            self._device, self._last_stream = device, None

    def replace(self, name: str, value: torch.Tensor) -> None:
        """Puts another tensor in a slot's place; ``lock`` is held."""
        self.values[name] = value
        tell = self._on_replaced()
        if tell is not None:
            tell(name, value)


def unaliased(values: list[Any], slots: Sequence[int], states: Sequence[torch.Tensor]) -> None:
    """Copies those of the values in ``slots`` that lie in the memory of a state, which is about to
    be written to."""
    owned = {state.untyped_storage().data_ptr() for state in states}
    for slot in slots:
        if values[slot].untyped_storage().data_ptr() in owned:
            values[slot] = values[slot].clone()
