# SPDX-License-Identifier: Apache-2.0
"""Replays golden samples on a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..bundle import Bundle
from ..smoke_report import SmokeReport
from . import smoke_numpy
from .arrays import DeviceArray
from .smoke_numpy import Sample, Value

if TYPE_CHECKING:
    import numpy


class Runs(Protocol):
    """As much of a session as proving it takes."""

    @property
    def bundle(self) -> Bundle: ...
    @property
    def states(self) -> Mapping[str, DeviceArray]: ...
    def run(self, inputs: Any, *, method: str | None = None) -> Mapping[str, Any]: ...
    def reset(self, states: Mapping[str, Any] = ...) -> None: ...


def proved(session: Runs, methods: Iterable[str]) -> SmokeReport:
    """Replays the golden samples of methods, each from its own state, and puts the state back."""
    manifest, report = session.bundle.manifest, SmokeReport(())
    slots = {slot.name: slot.dtype for slot in manifest.state}
    for method in methods:
        described = manifest.methods[method]
        types = {spec.name: spec.dtype for spec in described.outputs}

        def run(
            sample: Sample,
            method: str = method,
            types: Mapping[str, str] = types,
        ) -> tuple[dict[str, Value], dict[str, Value]]:
            session.reset(smoke_numpy.known(sample.before, session.states))
            outputs = session.run(list(sample.inputs), method=method)
            states = {name: array.numpy() for name, array in session.states.items()}
            session.reset()
            return (
                {name: Value(array, types[name]) for name, array in outputs.items()},
                {name: _declared(array, slots[name]) for name, array in states.items()},
            )

        samples = smoke_numpy.golden_samples(session.bundle, described)
        report += smoke_numpy.replay(run, samples, described.tolerance)
    return report


def _declared(array: numpy.ndarray[Any, Any], dtype: str) -> Value:
    """A state in the bundle's type, which an engine of TensorRT 8 may lack."""
    return Value(array.astype("int64") if dtype == "INT64" else array, dtype)
