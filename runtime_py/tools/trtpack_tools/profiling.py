# SPDX-License-Identifier: Apache-2.0
"""Where a bundle's time goes: every segment, every layer, every module of the model.

Two rounds are measured. In the first whole segments are timed as they run in use; in the second
every layer, which costs some time by itself, so a segment's layers may sum up to more than it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from trtpack_runtime.bench import percentile
from trtpack_runtime.clocks import Clock, clock_of
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.module import BundleModule

from .layer_times import Reading, layer_times
from .origins import Origin
from .trace import Event

_TRACED_CALLS = 10
_WHOLE = "calls"


@dataclass(frozen=True)
class Times:
    """Milliseconds a call, over all calls."""

    mean_ms: float
    p50_ms: float
    min_ms: float
    max_ms: float

    @staticmethod
    def of(times_ms: Sequence[float]) -> Times:
        """The figures of a list that is not empty."""
        ordered = sorted(times_ms)
        mean = sum(ordered) / len(ordered)
        return Times(mean, percentile(ordered, 50), ordered[0], ordered[-1])

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {
            "mean_ms": self.mean_ms,
            "p50_ms": self.p50_ms,
            "min_ms": self.min_ms,
            "max_ms": self.max_ms,
        }


@dataclass(frozen=True)
class LayerProfile:
    """A layer's times; ``share`` is of its segment's layers, by their medians."""

    name: str
    times: Times
    share: float
    origins: tuple[Origin, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        origins = [origin.to_json() for origin in self.origins]
        return {
            "name": self.name,
            **self.times.to_json(),
            "share": self.share,
            "origins": origins,
        }


@dataclass(frozen=True)
class SegmentProfile:
    """A segment's times; ``share`` is of all segments. ``layers`` is empty where none are known."""

    name: str
    kind: str
    times: Times
    share: float
    layers: tuple[LayerProfile, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "engine": self.kind,
            **self.times.to_json(),
            "share": self.share,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class Profile:
    """What was measured; ``call`` is the whole call, ``events`` a timeline of some calls."""

    method: str
    device: str
    iterations: int
    call: Times
    segments: tuple[SegmentProfile, ...]
    events: tuple[Event, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the timeline."""
        return {
            "method": self.method,
            "device": self.device,
            "iterations": self.iterations,
            "call": self.call.to_json(),
            "segments": [segment.to_json() for segment in self.segments],
        }


@dataclass(frozen=True)
class ModuleTime:
    """A module of the model with everything below it; ``depth`` counts from 0 for the model.

    ``ms`` is the sum of its layers' medians.
    """

    module: str
    depth: int
    ms: float
    share: float


def profile(
    module: BundleModule,
    method: str,
    inputs: Sequence[torch.Tensor],
    *,
    iterations: int = 20,
    warmup: int = 3,
    clock: Clock | None = None,
) -> Profile:
    """Measures a loaded bundle; its state is as after ``reset`` when it is done.

    Raises:
        InputMismatchError: an input the method does not take.
    """
    clock = clock or clock_of(module.device)
    segments = module.segments(method)
    with torch.inference_mode():
        module.reset()
        for _ in range(warmup):
            module.run(method, inputs)
        clock.wait()
        rounds = _Rounds(clock)
        with module.watching(rounds.watch):
            for _ in range(iterations):
                rounds.call(lambda: module.run(method, inputs))
        readings = _layers(module, method, segments, inputs, clock, min(iterations, 50))
        module.reset()
    total = sum(Times.of(rounds.of(s.name)).p50_ms for s in segments) or 1.0
    profiles = tuple(
        _segment(segment, Times.of(rounds.of(segment.name)), total, readings[segment.name])
        for segment in segments
    )
    events = tuple(_timeline(rounds, segments, profiles))
    call = Times.of(rounds.of(_WHOLE))
    return Profile(method, str(module.device), iterations, call, profiles, events)


def by_module(profile: Profile, depth: int) -> list[ModuleTime]:
    """The layers' time by module, down to ``depth`` names deep, as a tree in reading order.

    A layer that came from several modules is divided among them by how many of the network's layers
    each gave. What belongs to none, such as copies TensorRT adds, is not counted; a segment whose
    layers are not known has none.
    """
    own: dict[tuple[str, ...], float] = {}
    for segment in profile.segments:
        for layer in segment.layers:
            for origin in layer.origins:
                path = tuple(origin.module.split(".")) if origin.module else ()
                part = layer.times.p50_ms / len(layer.origins)
                for length in range(min(len(path), depth) + 1):
                    key = path[:length]
                    own[key] = own.get(key, 0.0) + part
    total = sum(layer.times.p50_ms for s in profile.segments for layer in s.layers) or 1.0
    first = {key: place for place, key in enumerate(own)}

    def order(key: tuple[str, ...]) -> list[int]:
        return [first[key[: n + 1]] for n in range(len(key))]

    return [
        ModuleTime(".".join(key), len(key), own[key], own[key] / total)
        for key in sorted(own, key=order)
    ]


class _Rounds:
    """The moments at which calls and their segments began and ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: dict[str, list[float]] = {}
        self._open: list[tuple[str, Any, Any]] = []
        self.starts: list[dict[str, tuple[float, float]]] = []

    def watch(self, segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
        """Runs the segment between two moments."""

        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            begin = self._clock.mark()
            outputs = segment.run(inputs)
            self._open.append((segment.name, begin, self._clock.mark()))
            return outputs

        return run

    def call(self, run: Callable[[], object]) -> None:
        """Makes one call and reads its moments when everything is done."""
        begin = self._clock.mark()
        run()
        end = self._clock.mark()
        self._clock.wait()
        spans = {}
        for name, start, stop in [*self._open, (_WHOLE, begin, end)]:
            duration = self._clock.elapsed_ms(start, stop)
            self._times.setdefault(name, []).append(duration)
            spans[name] = (self._clock.elapsed_ms(begin, start), duration)
        self._open = []
        self.starts.append(spans)

    def of(self, name: str) -> list[float]:
        """The durations of a segment, or of the calls."""
        return self._times[name]


def _layers(
    module: BundleModule,
    method: str,
    segments: Sequence[LoadedSegment],
    inputs: Sequence[torch.Tensor],
    clock: Clock,
    iterations: int,
) -> dict[str, list[list[Reading]]]:
    """Every segment's layers, a list a call."""
    with ExitStack() as stack:
        timers = {s.name: layer_times(module, method, s, clock, stack) for s in segments}
        readings: dict[str, list[list[Reading]]] = {s.name: [] for s in segments}

        def watch(segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
            timer = timers[segment.name]
            return segment.run if timer is None else timer.run

        with module.watching(watch):
            for number in range(iterations + 1):
                module.run(method, inputs)
                clock.wait()
                for name, timer in timers.items():
                    if timer is not None:
                        taken = timer.take()
                        readings[name] += [taken] if number else []  # the first call warms up
    return readings


def _segment(
    segment: LoadedSegment, times: Times, total: float, calls: Sequence[Sequence[Reading]]
) -> SegmentProfile:
    found: dict[str, list[float]] = {}
    origins: dict[str, tuple[Origin, ...]] = {}
    for call in calls:
        sums: dict[str, float] = {}
        for reading in call:  # a layer may run more than once a call
            sums[reading.name] = sums.get(reading.name, 0.0) + reading.ms
            origins[reading.name] = reading.origins
        for name, ms in sums.items():
            found.setdefault(name, []).append(ms)
    times_of = {name: Times.of(ms) for name, ms in found.items()}
    whole = sum(t.p50_ms for t in times_of.values()) or 1.0
    layers = tuple(
        LayerProfile(name, t, t.p50_ms / whole, origins[name]) for name, t in times_of.items()
    )
    return SegmentProfile(segment.name, segment.kind, times, times.p50_ms / total, layers)


def _timeline(
    rounds: _Rounds, segments: Sequence[LoadedSegment], profiles: Sequence[SegmentProfile]
) -> Iterator[Event]:
    """The first calls one after the other. Layers stand one after the other in their segment's
    lane, as long as they usually take; they are shortened together to fit the segment."""
    start = 0.0
    by_name = {p.name: p for p in profiles}
    for number, spans in enumerate(rounds.starts[:_TRACED_CALLS]):
        at, duration = spans[_WHOLE]
        yield Event(f"call {number}", _WHOLE, start + at, duration)
        for segment in segments:
            at, took = spans[segment.name]
            lane = f"{segment.name} ({segment.kind})"
            yield Event(segment.name, lane, start + at, took, {"engine": segment.kind})
            yield from _layer_events(by_name[segment.name], lane, start + at, took)
        start += duration


def _layer_events(
    profile: SegmentProfile, lane: str, start: float, duration: float
) -> Iterator[Event]:
    usual = sum(layer.times.p50_ms for layer in profile.layers)
    scale = duration / usual if usual > duration else 1.0
    for layer in profile.layers:
        took = layer.times.p50_ms * scale
        details: Mapping[str, Any] = {
            "modules": [origin.module for origin in layer.origins],
            "sources": [origin.source for origin in layer.origins],
            "mean_ms": round(layer.times.mean_ms, 6),
        }
        yield Event(layer.name, lane, start, took, details)
        start += took
