# SPDX-License-Identifier: Apache-2.0
"""Engine kinds: how a segment is run on a device, one module a kind, imported when first needed.

A kind's module has two functions: ``check`` compares an engine's compatibility record with a
machine's facts and needs only the standard library; ``load`` turns the engine into a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from trtpack_runtime.errors import BundleError
from trtpack_runtime.program import Segment

if TYPE_CHECKING:
    import torch

    from trtpack_runtime.network import Network

Fit = Literal["exact", "works", "builds", "rebuild", "impossible"]
FITS: tuple[Fit, ...] = ("exact", "works", "builds", "rebuild", "impossible")
"""From best to worst. ``rebuild``: the engine is of no use here, one built here would be;
``builds``: this machine can build that one."""

CARRIES_CODE = frozenset({"inductor"})
"""Kinds whose engines always hold machine code, which is loaded only from a trusted bundle."""

_MODULES = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "inductor": "inductor",
    "reference": "reference",
}
KINDS = tuple(_MODULES)


@dataclass(frozen=True)
class Verdict:
    """Whether an engine runs on a machine, and why, as a clause a user can read."""

    fit: Fit
    reason: str

    @property
    def usable(self) -> bool:
        """Whether the engine as it is runs on the machine."""
        return self.fit in ("exact", "works")


@dataclass(frozen=True)
class LoadContext:
    """What an engine is loaded with.

    ``constants`` are the stored tensors by name, mapped from the bundle and already on ``device``;
    ``network`` is the portable form of a network segment. ``record`` is the engine's compatibility
    record; ``weights`` are the stored tensors in the host's memory by name, for an engine that is
    refitted; ``trust`` says that machine code inside the engine may run.

    ``options`` are the caller's: ``cuda_graphs`` ("off", "on", "auto"; or a bool), ``graphs`` (for
    how many shapes they are kept) and ``contexts`` (how many threads run an engine at the same
    time) are what engines of TensorRT read.
    """

    segment: Segment
    constants: Mapping[str, torch.Tensor]
    device: torch.device
    network: Network | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False


Runner = Callable[[Sequence["torch.Tensor"]], "list[torch.Tensor]"]
"""Runs a segment: its inputs in the segment's order to its outputs in the segment's order."""


class DirectRunner(Protocol):
    """What the runners of TensorRT's engines offer besides; another kind may lack any of it."""

    capturable: bool
    """Whether a call may be captured into a CUDA graph."""
    on_stream_safe: bool
    """Whether several threads may call it at the same time, each on a stream of its own."""

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As ``Runner``."""

    def run_into(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        """As a call, with the results in memory of the caller's; raises InputMismatchError where
        that is not contiguous or of another shape, type or device."""

    def output_shapes(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
        """The outputs' shapes for inputs of these, None where only the data tells; raises
        InputMismatchError where the engine does not take them."""


class Engine(Protocol):
    """What the module of an engine kind offers."""

    def check(self, record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
        """Compares a compatibility record with a machine's facts (``device.py``)."""

    def load(self, blob: memoryview | Path | None, context: LoadContext) -> Runner:
        """Loads an engine; raises BundleError or DeviceError where it cannot."""


def engine(kind: str) -> Engine:
    """The module of an engine kind.

    Raises:
        BundleError: no such kind, or one that this runtime does not have yet.
    """
    try:
        module = import_module(f"{__name__}.{_MODULES[kind]}")
    except (KeyError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(__name__):
            raise
        raise BundleError(
            f"this runtime has no engine kind {kind!r}",
            hint="update trtpack-runtime on this device",
        ) from error
    return cast(Engine, module)


class _TensorRT(Engine, Protocol):
    """A kind that TensorRT or TensorRT-RTX runs."""

    MODULE: str


def tensorrt_module(kind: str) -> str:
    """The Python module behind ``tensorrt`` or ``tensorrt-rtx``."""
    return cast(_TensorRT, engine(kind)).MODULE
