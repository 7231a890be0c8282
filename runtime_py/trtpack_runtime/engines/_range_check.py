# SPDX-License-Identifier: Apache-2.0
"""Whether 64-bit integers fit an engine that has only 32-bit ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trtpack_runtime.errors import InputMismatchError

if TYPE_CHECKING:
    import torch


class RangeCheck:
    """Whether 64-bit integers fit into 32 bits; the GPU finds out while the host goes on."""

    def __init__(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """``pairs`` are the wide and the narrow tensor of each input."""
        import torch

        self._names = list(pairs)
        flags = torch.stack([(wide != narrow).any() for wide, narrow in pairs.values()])
        self._lost = flags
        self._done: Any = None
        if flags.is_cuda:
            self._lost = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
            self._lost.copy_(flags, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()

    def wait(self) -> None:
        """Waits for the answer, which does not wait for the engine.

        Raises:
            InputMismatchError: an input has integers beyond 32 bits.
        """
        if self._done is not None:
            self._done.synchronize()
        for name, lost in zip(self._names, self._lost.tolist(), strict=True):
            if lost:
                raise InputMismatchError(
                    f"input {name}: has integers beyond 32 bits, this engine's TensorRT has no "
                    "INT64",
                    hint="give values within 32 bits, or build for TensorRT 10 or later",
                )
