# SPDX-License-Identifier: Apache-2.0
"""Whether 64-bit integers fit an engine that has only 32-bit ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trtpack_runtime.errors import InputMismatchError

if TYPE_CHECKING:
    import torch

    from ._streams import Streams

_ALIGNMENT = 64
"""Numbers between places, so that TensorRT finds each at 256 bytes; ``NvInfer.h``."""


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
        _refuse(name for name, lost in zip(self._names, self._lost.tolist(), strict=True) if lost)


class Narrowing:
    """Places for the 64-bit integers of an engine, made 32-bit ones and checked by one launch.

    ``places`` are for what the caller gives, ``held`` what the engine reads, both by number.
    """

    def __init__(self, streams: Streams, given: Mapping[int, torch.Tensor]) -> None:
        """``given`` are the first call's inputs, by their number."""
        import torch

        sizes = [math.ceil(tensor.numel() / _ALIGNMENT) * _ALIGNMENT for tensor in given.values()]
        device = next(iter(given.values())).device
        self._wide = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        self._narrow = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        self.places = _parts(self._wide, sizes, given)
        self.held = _parts(self._narrow, sizes, given)
        for number, tensor in given.items():
            self.places[number].copy_(tensor)
        self._differ = torch.zeros(sum(sizes), dtype=torch.bool, device=device)
        self._lost = torch.zeros((), dtype=torch.bool, device=device)
        self._told = torch.zeros((), dtype=torch.bool, pin_memory=self._lost.is_cuda)
        self._done = streams.event()
        self._streams = streams
        self._launch = streams.at_once(self._work)

    def begin(self) -> None:
        """Fills ``held`` from ``places`` and begins to check it, on the current stream."""
        self._launch()
        self._done.record(self._streams.now())

    def wait(self, names: Mapping[int, str]) -> None:
        """Waits for the check, which does not wait for the engine; ``names`` by number.

        Raises:
            InputMismatchError: an input has integers beyond 32 bits.
        """
        self._done.synchronize()
        if self._told.item():
            lost = (i for i, wide in self.places.items() if bool((wide != self.held[i]).any()))
            _refuse(names[i] for i in lost)

    def memory(self) -> list[torch.Tensor]:
        """What the launch works in, which the allocator has to know where it is used."""
        return [self._wide, self._narrow, self._differ, self._lost]

    def _work(self) -> None:
        import torch

        self._narrow.copy_(self._wide)
        torch.ne(self._wide, self._narrow, out=self._differ)
        torch.any(self._differ, out=self._lost)
        self._told.copy_(self._lost, non_blocking=True)


def _parts(
    whole: torch.Tensor, sizes: Iterable[int], like: Mapping[int, torch.Tensor]
) -> dict[int, torch.Tensor]:
    parts = whole.split(list(sizes))
    return {
        number: part[: tensor.numel()].view(tensor.shape)
        for part, (number, tensor) in zip(parts, like.items(), strict=True)
    }


def _refuse(names: Iterable[str]) -> None:
    for name in names:
        raise InputMismatchError(
            f"input {name}: has integers beyond 32 bits, this engine's TensorRT has no INT64",
            hint="give values within 32 bits, or build for TensorRT 10 or later",
        )
