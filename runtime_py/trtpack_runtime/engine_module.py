# SPDX-License-Identifier: Apache-2.0
"""One segment of a loaded bundle as a ``torch.nn.Module`` of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from .errors import ConfigError, InputMismatchError
from .execution import LoadedSegment
from .input_check import InputCheck
from .manifest import TensorSpec
from .tracing import Origin, call, is_traced


class EngineModule(torch.nn.Module):
    """A segment with the engine that runs it, called with its tensors in the engine's order.

    It has no parameters: the engine has weights of its own, and moves with its bundle only.
    """

    def __init__(
        self,
        segment: LoadedSegment,
        origin: Origin,
        device: torch.device,
        taken: Sequence[TensorSpec] = (),
    ) -> None:
        """``taken`` is what an engine takes that does not look at its inputs itself."""
        super().__init__()
        self._check = InputCheck(taken, device) if taken else None
        self._segment, self._origin, self._device = segment, origin, device
        self.eval()

    @property
    def kind(self) -> str:
        """The kind of its engine; ``reference`` where PyTorch runs it."""
        return self._segment.kind

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its inputs are called in the bundle's program, in order."""
        return self._segment.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """What its outputs are called in the bundle's program, in order."""
        return self._segment.outputs

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the engine on the caller's stream; the outputs are never part of an autograd graph.

        Raises:
            InputMismatchError: too few or too many inputs, or any that the engine does not take.
        """
        if len(inputs) != len(self._segment.inputs):
            raise InputMismatchError(
                f"segment {self._segment.name}: wanted {len(self._segment.inputs)} inputs, "
                f"got {len(inputs)}",
                hint=f"give it {', '.join(self._segment.inputs) or 'nothing'}",
            )
        if is_traced(inputs):
            return tuple(call(inputs, self._origin))
        return tuple(self.run(inputs))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs the engine whether a program is traced or not."""
        if self._check is not None:
            inputs = self._check(inputs)
        with torch.no_grad():
            return self._segment.run([tensor.detach() for tensor in inputs])

    def extra_repr(self) -> str:
        """The segment's name and the kind of its engine."""
        return f"{self._segment.name!r}, engine={self.kind!r}, device={self._device}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        if fn(torch.empty(0, device=self._device)).device == self._device:
            return self
        raise ConfigError(
            f"cannot move the segment {self._segment.name} alone",
            hint="move the whole bundle with .to()",
        )

    def __deepcopy__(self, memo: Any) -> NoReturn:
        refuse_copies(self._origin.path)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse_copies(self._origin.path)


def refuse_copies(path: str) -> NoReturn:
    """Raises what a copy of an engine is answered with."""
    raise ConfigError(
        "a loaded bundle holds engines and cannot be copied or pickled",
        hint=f"load {path} again where it is needed",
    )
