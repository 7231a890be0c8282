# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of a method: its tensors, how they nest, and the samples that prove it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from . import dims
from .checked_json import MalformedError, Place
from .dims import Dim
from .dtypes import DTYPES


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a method.

    ``dtype`` is TensorRT's name. A dim is a number, an expression over the inputs' dims, or None
    where only the data tells it. ``min``, ``opt`` and ``max`` are shapes; None for a fixed shape.
    """

    name: str
    dtype: str
    shape: tuple[Dim | None, ...]
    min: tuple[int, ...] | None = None
    opt: tuple[int, ...] | None = None
    max: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Golden:
    """A stored call: a safetensors member and its tensors' names, each in the method's order.

    It begins with the state that the first samples of the methods in ``follows`` left, in their
    order; with the first values where there is none (``beginnings.py``).
    """

    member: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Border:
    """What the original computes for a golden sample where one segment ends and the next begins.

    ``mean``, ``std`` and ``absmax`` are those of the finite elements, ``nonfinite`` counts the
    others. ``sketch`` are the elements at fixed places (``borders.py``), None where not finite.
    """

    shape: tuple[int, ...]
    mean: float
    std: float
    absmax: float
    nonfinite: int
    sketch: tuple[float | None, ...]


@dataclass(frozen=True)
class Limits:
    """What a device may take at most for a method to pass; None leaves it open."""

    max_latency_ms: float | None = None
    max_memory_mb: float | None = None


@dataclass(frozen=True)
class Method:
    """An entry point. ``in_tree`` and ``out_tree`` are the structures of ``treespec.py``.

    ``borders`` are those of each golden sample in order, by the programs' value names; bundles of
    older writers have none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    in_tree: Any
    out_tree: Any
    golden: tuple[Golden, ...] = ()
    tolerance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Limits = Limits()
    borders: tuple[Mapping[str, Border], ...] = ()


def read_method(place: Place) -> Method:
    """A method of its JSON; MalformedError for a value out of place."""
    golden, tolerance = place.get("golden"), place.get("tolerance")
    limits, borders = place.get("limits"), place.get("borders")
    return Method(
        inputs=place["inputs"].each(_tensor),
        outputs=place["outputs"].each(_tensor),
        in_tree=place["in_tree"].value,
        out_tree=place["out_tree"].value,
        golden=golden.each(_golden) if golden else (),
        tolerance=tolerance.mapping(lambda p: p.object()) if tolerance else {},
        limits=_limits(limits) if limits else Limits(),
        borders=borders.each(lambda sample: sample.mapping(_border)) if borders else (),
    )


def method_json(method: Method) -> dict[str, Any]:
    """A method as plain JSON values."""
    limits = {key: value for key, value in asdict(method.limits).items() if value is not None}
    borders = borders_json(method.borders)
    return {
        "inputs": [_tensor_json(t) for t in method.inputs],
        "outputs": [_tensor_json(t) for t in method.outputs],
        "in_tree": method.in_tree,
        "out_tree": method.out_tree,
        "golden": [
            {
                "member": g.member,
                "inputs": list(g.inputs),
                "outputs": list(g.outputs),
                "states": list(g.states),
                **({"follows": list(g.follows)} if g.follows else {}),
            }
            for g in method.golden
        ],
        "tolerance": {name: dict(bounds) for name, bounds in method.tolerance.items()},
        **({"limits": limits} if limits else {}),
        **({"borders": borders} if any(borders) else {}),
    }


def borders_json(samples: Sequence[Mapping[str, Border]]) -> list[dict[str, Any]]:
    """The borders of each golden sample as plain JSON values."""
    return [{name: _border_json(b) for name, b in sample.items()} for sample in samples]


def read_dtype(place: Place) -> str:
    """A type by TensorRT's name."""
    return place.string(among=DTYPES)


def in_order(methods: Mapping[str, Method]) -> list[str]:
    """The methods' names, each after those that its samples follow.

    Raises:
        MalformedError: a sample follows what is no other method with a sample, or methods follow
            each other in a circle.
    """
    for name, method in methods.items():
        for i, golden in enumerate(method.golden):
            for k, followed in enumerate(golden.follows):
                if followed == name or followed not in methods or not methods[followed].golden:
                    place = Place(followed, f"methods.{name}.golden[{i}].follows[{k}]")
                    place.wrong("another method with a golden sample")
    graph = {n: [f for g in m.golden for f in g.follows] for n, m in methods.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        last, *others = reversed(error.args[1])
        circle = ", which follows ".join(others)
        raise MalformedError(f"methods.{last}.golden follows {circle}") from error


def _golden(place: Place) -> Golden:
    states, follows = place.get("states"), place.get("follows")
    return Golden(
        place["member"].string(),
        place["inputs"].each(Place.string),
        place["outputs"].each(Place.string),
        states.each(Place.string) if states else (),
        follows.each(Place.string) if follows else (),
    )


def _tensor(place: Place) -> TensorSpec:
    shape = place["shape"].each(_dim)
    ranges = [_numbers(found) if (found := place.get(k)) else None for k in ("min", "opt", "max")]
    for key, sizes in zip(("min", "opt", "max"), ranges):  # noqa: B905 both have three
        if sizes is not None and len(sizes) != len(shape):
            place[key].wrong(f"{len(shape)} sizes")
    return TensorSpec(place["name"].string(), read_dtype(place["dtype"]), shape, *ranges)


def _dim(place: Place) -> Dim | None:
    if place.value is None:
        return None
    try:
        size = dims.from_json(place.value)
    except (ValueError, TypeError, ZeroDivisionError):
        place.wrong("a size expression")
    if isinstance(size, int) and size < 0:
        place.wrong("a size from 0")
    return size


def _limits(place: Place) -> Limits:
    found = {key: place.get(key) for key in ("max_latency_ms", "max_memory_mb")}
    return Limits(**{key: _positive(value) for key, value in found.items() if value is not None})


def _border(place: Place) -> Border:
    return Border(
        _numbers(place["shape"]),
        _number(place["mean"]),
        _number(place["std"]),
        _number(place["absmax"]),
        place["nonfinite"].integer(),
        place["sketch"].each(lambda p: None if p.value is None else _number(p)),
    )


def _number(place: Place) -> float:
    value = place.value
    if type(value) not in (int, float) or not math.isfinite(value):
        place.wrong("a number")
    return float(value)


def _positive(place: Place) -> float:
    value = _number(place)
    if value <= 0:
        place.wrong("a number above 0")
    return value


def _numbers(place: Place) -> tuple[int, ...]:
    return place.each(Place.integer)


def _tensor_json(tensor: TensorSpec) -> dict[str, Any]:
    ranges = {"min": tensor.min, "opt": tensor.opt, "max": tensor.max}
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": [None if d is None else dims.to_json(d) for d in tensor.shape],
        **{key: list(sizes) for key, sizes in ranges.items() if sizes is not None},
    }


def _border_json(border: Border) -> dict[str, Any]:
    return {**asdict(border), "shape": list(border.shape), "sketch": list(border.sketch)}
