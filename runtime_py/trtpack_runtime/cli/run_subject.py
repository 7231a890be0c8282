# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run`` needs of a loaded bundle, with PyTorch or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..bundle import Bundle
from ..clocks import Clock
from ..errors import InputMismatchError
from ..finish import Finished
from ..manifest import Method
from ..resolve import Choice
from ..run_report import TensorFacts
from ..smoke_report import SmokeReport

T = TypeVar("T")


class Subject(Protocol):
    """A loaded bundle. Inputs and outputs of a method are sequences in the manifest's order."""

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""

    @property
    def choice(self) -> Choice:
        """The variants, and why one was taken."""

    @property
    def degraded(self) -> bool:
        """Whether something that should be an engine runs in PyTorch."""

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What figures depend on besides: ``cuda_graphs``, ``threads``."""

    @property
    def built(self) -> Mapping[str, Mapping[str, Any]]:
        """The engines of this machine's own: ``source``, ``build_seconds`` and, in words,
        ``told``, by segment."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Why segments run in PyTorch that should not."""

    @property
    def uncompiled(self) -> Mapping[str, str]:
        """Why what PyTorch runs in any case is not compiled."""

    @property
    def start(self) -> Mapping[str, Any]:
        """What is known of the start, as JSON: ``seconds`` of its phases (``LoadTimes``), and
        ``memory``, what was predicted (``MemoryPlan``)."""

    @property
    def clock(self) -> Clock:
        """What measures work where it runs."""

    def segments(self, method: str) -> tuple[tuple[str, str], ...]:
        """A method's segments in order, each with the kind that runs it."""

    def inputs(self, method: str, files: Sequence[str]) -> Sequence[Any]:
        """The inputs that ``--input`` arguments give, those of the first golden sample without.

        Raises:
            ConfigError: they are not what the method takes.
        """

    def call(self, method: str, inputs: Sequence[Any]) -> Sequence[Any]:
        """One call; it may return before the device is done."""

    def smoke(self, method: str) -> SmokeReport:
        """Replays a method's golden samples."""

    def reset(self, method: str | None = None) -> None:
        """Puts the state back to its first values, or to what a method's first golden sample
        begins with."""

    def told(self, name: str, value: Any, values: bool = False) -> TensorFacts:
        """What to say of a tensor; with ``values`` also its least and largest."""

    def labels(self, outputs: Sequence[Any]) -> list[list[tuple[str, float]]]:
        """The best labels of each item, where the bundle has some and one output is logits."""

    def write(self, path: Path, outputs: Mapping[str, Any]) -> None:
        """Writes outputs by name to a file."""

    def gpu_peak_bytes(self) -> int | None:
        """The most GPU memory that PyTorch's tensors took; None where it does not run there."""


def built_engines(own: Mapping[str, Finished]) -> dict[str, Mapping[str, Any]]:
    """What ``Subject.built`` says of a machine's own engines."""
    return {
        name: {
            "source": "store" if engine.cached else "built",
            "build_seconds": round(engine.seconds, 3),
            "told": engine.told,
        }
        for name, engine in own.items()
    }


def in_order(described: Method, given: Mapping[str, T]) -> list[T]:
    """The inputs that were given, in the method's order.

    Raises:
        InputMismatchError: one is missing.
    """
    for spec in described.inputs:
        if spec.name not in given:
            raise InputMismatchError(
                f"input {spec.name!r} is not given", hint=f"add --input {spec.name}=FILE"
            )
    return [given[spec.name] for spec in described.inputs]
