# SPDX-License-Identifier: Apache-2.0
"""How latency, throughput and memory go with a size, mostly the batch, and what to build then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime import dims
from trtpack_runtime.bench import Bench, Plan, bench
from trtpack_runtime.clocks import clock_of
from trtpack_runtime.device_faults import device_fault
from trtpack_runtime.errors import ConfigError, DeviceError, DeviceLostError
from trtpack_runtime.free_memory import used_bytes
from trtpack_runtime.golden import sample_inputs
from trtpack_runtime.manifest import TensorSpec
from trtpack_runtime.module import BundleModule
from trtpack_runtime.vitals import host_peak_bytes

KNEE = 0.9
"""The knee has this part of the most items a second."""

OnPoint = Callable[["Point"], None]


@dataclass(frozen=True)
class Axis:
    """The dimension that is swept: axis ``axis`` of ``tensor``, from ``low`` to ``high``."""

    tensor: str
    axis: int
    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.tensor}:{self.axis}"


@dataclass(frozen=True)
class Point:
    """One size: what was measured, and the most memory there was, in bytes, where that is known; or
    why it does not run."""

    size: int
    bench: Bench | None = None
    memory_bytes: int | None = None
    failed: str | None = None

    @property
    def ms(self) -> float:
        """The median of a call, in milliseconds."""
        assert self.bench is not None
        return self.bench.wall.p50_ms

    @property
    def per_second(self) -> float:
        """Items a second."""
        assert self.bench is not None
        return self.bench.items_per_second

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        measured = None if self.bench is None else self.bench.to_json()
        return {
            "size": self.size,
            "latency": measured,
            "memory_bytes": self.memory_bytes,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Advice:
    """What the points come to.

    ``knee`` is the smallest size with 90 % of the most items a second, ``most`` the one that has
    those; ``within`` the size with the most items a second that keeps the latency that was asked
    for, None where none does. ``inputs`` is what to build with, ``profiles`` further ones.
    """

    knee: int
    most: int
    within: int | None
    inputs: tuple[str, ...]
    profiles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "inputs": list(self.inputs), "profiles": list(self.profiles)}


def axis_of(module: BundleModule, method: str, named: str | None = None) -> Axis:
    """The dimension to sweep: ``named`` as ``INPUT:AXIS``, else the first open one at the front of
    an input, else the first open one.

    Raises:
        ConfigError: there is no such dimension, or it is fixed.
    """
    module.method(method)
    specs = module.bundle.manifest.methods[method].inputs
    found = [axis for spec in specs for axis in _open(spec)]
    if named is None:
        front = [axis for axis in found if axis.axis == 0]
        if not found:
            raise ConfigError(
                f"every size of {method}() is fixed: {', '.join(map(_shape_text, specs))}",
                hint=f"build it for a range, such as --input {specs[0].name}=1/8/32x..."
                if specs
                else "sweep a model that has inputs",
            )
        return (front or found)[0]
    for axis in found:
        if str(axis) == named:
            return axis
    raise ConfigError(
        f"{method}() has no open dimension {named}",
        hint=f"choose one of {', '.join(map(str, found))}" if found else "all of them are fixed",
    )


def sizes_of(axis: Axis, asked: Sequence[int]) -> tuple[int, ...]:
    """The sizes to measure in order: those asked for, else powers of two and both ends.

    Raises:
        ConfigError: one is outside of what the bundle takes.
    """
    if not asked:
        powers = [1 << k for k in range(axis.high.bit_length()) if axis.low <= 1 << k <= axis.high]
        return tuple(sorted({axis.low, *powers, axis.high}))
    for size in asked:
        if not axis.low <= size <= axis.high:
            raise ConfigError(
                f"{axis} takes {axis.low} to {axis.high}, not {size}",
                hint="leave it out, or build for a larger range",
            )
    return tuple(sorted(set(asked)))


def sweep(
    module: BundleModule,
    method: str,
    axis: Axis,
    sizes: Sequence[int],
    plan: Plan,
    *,
    before_bytes: int | None = None,
    on_point: OnPoint | None = None,
) -> tuple[Point, ...]:
    """Measures a method at every size, from the smallest on, until the memory is not enough.

    Args:
        module: the loaded bundle.
        method: what to call.
        axis: the dimension that changes; other open ones stay as in the first golden sample.
        sizes: its sizes, in order.
        plan: how much to measure of each.
        before_bytes: what of the GPU was in use before the bundle was loaded.
        on_point: told each point when it is measured.
    """
    given = sample_inputs(module, method)
    points = []
    for size in sizes:
        inputs = resized(module, method, given, axis, size)
        point = _measured(module, method, inputs, size, plan, before_bytes)
        points.append(point)
        if on_point is not None:
            on_point(point)
        if point.failed is not None:
            break
    return tuple(points)


def resized(
    module: BundleModule, method: str, given: Sequence[torch.Tensor], axis: Axis, size: int
) -> list[torch.Tensor]:
    """Inputs with another size of ``axis`` and of what follows it: their elements over and over."""
    specs = module.bundle.manifest.methods[method].inputs
    known = {spec.name: tuple(x.shape) for spec, x in zip(specs, given, strict=True)}

    def lookup(name: str, place: int) -> int:
        return size if (name, place) == (axis.tensor, axis.axis) else known[name][place]

    answer = []
    for spec, x in zip(specs, given, strict=True):
        for place, wanted in enumerate(spec.shape):
            count = x.shape[place] if wanted is None else int(dims.evaluate(wanted, lookup))
            if count != x.shape[place]:
                x = x.index_select(place, torch.arange(count, device=x.device) % x.shape[place])
        answer.append(x.contiguous())
    return answer


def advise(
    points: Sequence[Point],
    specs: Sequence[TensorSpec],
    axis: Axis,
    max_latency_ms: float | None = None,
) -> Advice | None:
    """What to build for, and which size to call with; None where nothing was measured.

    The suggested range ends at the size with the most items a second, its optimum is the knee; with
    engines of TensorRT a profile of its own serves the smallest size, which most often comes alone.
    """
    measured = [point for point in points if point.bench is not None]
    if not measured:
        return None
    best = max(measured, key=lambda point: point.per_second)
    knee = next(p for p in measured if p.per_second >= KNEE * best.per_second)
    quick = [p for p in measured if max_latency_ms is not None and p.ms <= max_latency_ms]
    within = max(quick, key=lambda p: p.per_second).size if quick else None
    low, high = measured[0].size, max(best.size, knee.size)
    inputs = tuple(_spec_text(spec, axis, (low, knee.size, high)) for spec in specs)
    alone = low < knee.size
    profiles = tuple(
        f"{spec.name}={'x'.join(map(str, _shape(spec, axis, low)))}"
        for spec in specs
        if alone and _moves(spec, axis)
    )
    return Advice(knee.size, best.size, within, inputs, (";".join(profiles),) if profiles else ())


def _measured(
    module: BundleModule,
    method: str,
    inputs: Sequence[torch.Tensor],
    size: int,
    plan: Plan,
    before_bytes: int | None,
) -> Point:
    _forget_peak()

    def call() -> object:
        with torch.inference_mode():
            return module.run(method, inputs)

    try:
        found = bench(
            call,
            clock_of(module.device),
            plan,
            prepare=module.reset if module.states else None,
            items_per_call=size,
        )
    except (RuntimeError, MemoryError, DeviceError) as error:
        told = error if isinstance(error, DeviceError) else device_fault(error)
        if isinstance(told, DeviceLostError) or not isinstance(told, DeviceError):
            raise
        return Point(size, failed=told.message)
    finally:
        module.reset()
    return Point(size, found, _memory(module, before_bytes))


def _memory(module: BundleModule, before_bytes: int | None) -> int | None:
    """What a GPU has in use more than before; the most main memory that was resident."""
    if module.device.type == "cpu":
        return host_peak_bytes()
    now = used_bytes(module.device)
    return None if now is None or before_bytes is None else max(0, now - before_bytes)


def _forget_peak() -> None:
    """Begins to count the most resident memory anew, where the system lets it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _open(spec: TensorSpec) -> Iterator[Axis]:
    """The open dimensions that an input itself tells."""
    if spec.min is None or spec.max is None:
        return
    for place, (low, high) in enumerate(zip(spec.min, spec.max, strict=True)):
        if low != high and spec.shape[place] == dims.dim(spec.name, place):
            yield Axis(spec.name, place, low, high)


def _moves(spec: TensorSpec, axis: Axis) -> bool:
    return any(_follows(size, axis) for size in spec.shape)


def _follows(size: Any, axis: Axis) -> bool:
    return size is not None and (axis.tensor, axis.axis) in set(dims.atoms(size))


def _shape(spec: TensorSpec, axis: Axis, size: int) -> tuple[int, ...]:
    """An input's shape at a size of ``axis``, other open dimensions at their best."""
    best = spec.opt or tuple(s if isinstance(s, int) else 1 for s in spec.shape)
    return tuple(
        int(dims.evaluate(wanted, lambda *_: size))
        if wanted is not None and _follows(wanted, axis)
        else known
        for wanted, known in zip(spec.shape, best, strict=True)
    )


def _spec_text(spec: TensorSpec, axis: Axis, sizes: tuple[int, int, int]) -> str:
    """``x=1/8/32x3x224x224``."""
    swept = [_shape(spec, axis, size) for size in sizes]
    ranges = zip(*(given or swept[1] for given in (spec.min, spec.opt, spec.max)), strict=True)
    texts = []
    for place, known in enumerate(ranges):
        chosen = known
        if _follows(spec.shape[place], axis):
            chosen = tuple(shape[place] for shape in swept)
        texts.append(str(chosen[0]) if len(set(chosen)) == 1 else "/".join(map(str, chosen)))
    return f"{spec.name}={'x'.join(texts)}"


def _shape_text(spec: TensorSpec) -> str:
    return f"{spec.name}={'x'.join('?' if s is None else str(s) for s in spec.shape)}"
