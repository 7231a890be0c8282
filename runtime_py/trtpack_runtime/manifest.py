# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: methods, state, weights, variants, and every member's digest.

``docs/reference/bundle-format.md`` explains each key. Unknown keys are left out of what is read and
so are ignored; an unknown entry of ``requires`` is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import dims
from .checked_json import MalformedError, Place, canonical, parse
from .dims import Dim
from .dtypes import DTYPES
from .errors import BundleError, ConfigError
from .tar_layout import FORMAT, Entry, check_name

_SCHEMA = re.compile(r"trtpack\.bundle/(\d+)")
_REQUIREMENT = re.compile(r"format:1|torch>=\d+(\.\d+)*|module:[^\W\d]\w*(\.[^\W\d]\w*)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
    """A stored call: a safetensors member and its tensors' names, each in the method's order."""

    member: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """An entry point. ``in_tree`` and ``out_tree`` are the structures of ``treespec.py``."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    in_tree: Any
    out_tree: Any
    golden: tuple[Golden, ...] = ()
    tolerance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class StateTensor:
    """A tensor that calls change; ``initial`` names its first value in the weight store."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    initial: str


@dataclass(frozen=True)
class Weights:
    """The weight store's members, and ``state_dict`` name -> stored name."""

    members: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    buffers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineRef:
    """A segment's engine: a member with its compatibility record, or why there is none yet.

    ``options`` is what a device builds it with, and ``content`` a digest of what it computes: its
    network and the weights that reads (``engine_store.content_of``).
    """

    kind: str
    member: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    deferred: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    content: str | None = None


@dataclass(frozen=True)
class Variant:
    """What the bundle has for one target: method -> program member, segment -> engine.

    ``caches`` holds under ``timing`` what the tactic search found: ``member``, its readable twin
    ``lock`` where there is one, and the ``key`` of the devices it is good for.
    """

    target: Mapping[str, Any]
    programs: Mapping[str, str]
    engines: Mapping[str, EngineRef]
    caches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest; ``members`` is filled when the bundle is written."""

    name: str
    producer: str
    methods: Mapping[str, Method]
    variants: Mapping[str, Variant]
    requires: tuple[str, ...] = ("format:1",)
    members: tuple[Entry, ...] = ()
    state: tuple[StateTensor, ...] = ()
    weights: Weights = Weights()
    report: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """The manifest of plain JSON values.

        Raises:
            BundleError: a newer format, an unknown requirement, or a value out of place.
        """
        try:
            return _read(Place(value))
        except (MalformedError, RecursionError) as error:
            raise BundleError(
                f"malformed manifest: {error}", hint="build the bundle again"
            ) from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Reads what ``to_bytes`` wrote; raises as ``from_json``."""
        try:
            value = parse(data)
        except MalformedError as error:
            raise BundleError(
                f"malformed manifest: {error}", hint="build the bundle again"
            ) from error
        return cls.from_json(value)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return {
            "schema": FORMAT,
            "producer": self.producer,
            "name": self.name,
            "requires": list(self.requires),
            "members": [{"name": e.name, "size": e.size, "sha256": e.sha256} for e in self.members],
            "methods": {name: _method_json(method) for name, method in self.methods.items()},
            "state": [
                {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "initial": s.initial}
                for s in self.state
            ],
            "weights": {
                "members": list(self.weights.members),
                "parameters": dict(self.weights.parameters),
                "buffers": dict(self.weights.buffers),
            },
            "variants": {
                name: {
                    "target": dict(v.target),
                    "programs": dict(v.programs),
                    "engines": {k: _engine_json(e) for k, e in v.engines.items()},
                    **({"caches": {k: dict(c) for k, c in v.caches.items()}} if v.caches else {}),
                }
                for name, v in self.variants.items()
            },
            "report": dict(self.report),
            "metadata": dict(self.metadata),
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests give equal bytes.

        Raises:
            ConfigError: metadata that JSON cannot hold, such as NaN.
        """
        try:
            return canonical(self.to_json())
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the bundle's metadata is no JSON: {str(error).lower()}",
                hint="write such values as text",
            ) from error

    def with_members(self, entries: Sequence[Entry]) -> Manifest:
        """The same manifest with another list of members."""
        return replace(self, members=tuple(entries))

    def references(self) -> Iterator[tuple[str, str]]:
        """Every member that something refers to: ``(place, member)``."""
        for name, method in self.methods.items():
            for i, golden in enumerate(method.golden):
                yield f"methods.{name}.golden[{i}].member", golden.member
        for i, member in enumerate(self.weights.members):
            yield f"weights.members[{i}]", member
        for name, variant in self.variants.items():
            for method_name, member in variant.programs.items():
                yield f"variants.{name}.programs.{method_name}", member
            for segment, engine in variant.engines.items():
                if engine.member is not None:
                    yield f"variants.{name}.engines.{segment}.member", engine.member
            for kind, cache in variant.caches.items():
                for key in ("member", "lock"):
                    if cache.get(key) is not None:
                        yield f"variants.{name}.caches.{kind}.{key}", cache[key]

    def check_references(self) -> None:
        """BundleError where something refers to a member that is not listed."""
        listed = {entry.name for entry in self.members}
        for place, member in self.references():
            if member not in listed:
                raise BundleError(
                    f"malformed manifest: {place} refers to {member}, which is not listed",
                    hint="build the bundle again",
                    member=member,
                )


def _read(top: Place) -> Manifest:
    schema = top["schema"].string()
    match = _SCHEMA.fullmatch(schema)
    if match is None:
        top["schema"].wrong(FORMAT)
    if schema != FORMAT:
        raise BundleError(
            f"cannot read a bundle of format {schema}, this runtime reads {FORMAT}",
            hint="update trtpack-runtime on this device",
            wants=schema,
            has=FORMAT,
        )
    members = top["members"].each(_entry)
    seen: set[str] = set()
    for i, entry in enumerate(members):
        if entry.name in seen:
            Place(entry.name, f"members[{i}].name").wrong("a name of its own")
        seen.add(entry.name)
    report, metadata = top.get("report"), top.get("metadata")
    return Manifest(
        name=top["name"].string(),
        producer=top["producer"].string(),
        requires=top["requires"].each(_requirement),
        members=members,
        methods=top["methods"].mapping(_method),
        state=top["state"].each(_state),
        weights=_weights(top["weights"]),
        variants=top["variants"].mapping(_variant),
        report=report.object() if report else {},
        metadata=metadata.object() if metadata else {},
    )


def _requirement(place: Place) -> str:
    text = place.string()
    if not _REQUIREMENT.fullmatch(text):
        raise BundleError(
            f"the bundle requires {text!r}, which this runtime does not know",
            hint="update trtpack-runtime on this device",
            wants=text,
        )
    return text


def _entry(place: Place) -> Entry:
    name = place["name"].string()
    if reason := check_name(name):
        raise MalformedError(f"{place.path}.name {name!r} {reason}")
    return Entry(name, place["size"].integer(), _digest(place["sha256"]))


def _method(place: Place) -> Method:
    golden, tolerance = place.get("golden"), place.get("tolerance")
    return Method(
        inputs=place["inputs"].each(_tensor),
        outputs=place["outputs"].each(_tensor),
        in_tree=place["in_tree"].value,
        out_tree=place["out_tree"].value,
        golden=golden.each(_golden) if golden else (),
        tolerance=tolerance.mapping(lambda p: p.object()) if tolerance else {},
    )


def _golden(place: Place) -> Golden:
    states = place.get("states")
    return Golden(
        place["member"].string(),
        _strings(place["inputs"]),
        _strings(place["outputs"]),
        _strings(states) if states else (),
    )


def _tensor(place: Place) -> TensorSpec:
    shape = place["shape"].each(_dim)
    ranges = [_numbers(found) if (found := place.get(k)) else None for k in ("min", "opt", "max")]
    for key, sizes in zip(("min", "opt", "max"), ranges):  # noqa: B905 both have three
        if sizes is not None and len(sizes) != len(shape):
            place[key].wrong(f"{len(shape)} sizes")
    return TensorSpec(place["name"].string(), _dtype(place["dtype"]), shape, *ranges)


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


def _state(place: Place) -> StateTensor:
    return StateTensor(
        place["name"].string(),
        _dtype(place["dtype"]),
        _numbers(place["shape"]),
        place["initial"].string(),
    )


def _weights(place: Place) -> Weights:
    return Weights(
        _strings(place["members"]),
        place["parameters"].mapping(Place.string),
        place["buffers"].mapping(Place.string),
    )


def _variant(place: Place) -> Variant:
    target = place["target"]
    target["name"].string()
    target["kind"].string()
    caches = place.get("caches")
    return Variant(
        target.object(),
        place["programs"].mapping(Place.string),
        place["engines"].mapping(_engine),
        caches.mapping(_cache) if caches else {},
    )


def _engine(place: Place) -> EngineRef:
    member, record, deferred = (place.get(key) for key in ("member", "record", "deferred"))
    options, content = place.get("options"), place.get("content")
    return EngineRef(
        place["kind"].string(),
        member.string() if member else None,
        record.object() if record else {},
        deferred.string() if deferred else None,
        options.object() if options else {},
        _digest(content) if content else None,
    )


def _cache(place: Place) -> dict[str, Any]:
    lock = place.get("lock")
    return {
        "member": place["member"].string(),
        "lock": lock.string() if lock else None,
        "key": dict(place["key"].object()),
    }


def _digest(place: Place) -> str:
    text = place.string()
    if not _DIGEST.fullmatch(text):
        place.wrong("a sha256 in lower-case hex")
    return text


def _strings(place: Place) -> tuple[str, ...]:
    return place.each(Place.string)


def _numbers(place: Place) -> tuple[int, ...]:
    return place.each(Place.integer)


def _dtype(place: Place) -> str:
    return place.string(among=DTYPES)


def _tensor_json(tensor: TensorSpec) -> dict[str, Any]:
    ranges = {"min": tensor.min, "opt": tensor.opt, "max": tensor.max}
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": [None if d is None else dims.to_json(d) for d in tensor.shape],
        **{key: list(sizes) for key, sizes in ranges.items() if sizes is not None},
    }


def _method_json(method: Method) -> dict[str, Any]:
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
            }
            for g in method.golden
        ],
        "tolerance": {name: dict(bounds) for name, bounds in method.tolerance.items()},
    }


def _engine_json(engine: EngineRef) -> dict[str, Any]:
    found = {
        "member": engine.member,
        "record": dict(engine.record),
        "deferred": engine.deferred,
        "options": dict(engine.options),
        "content": engine.content,
    }
    return {"kind": engine.kind, **{key: value for key, value in found.items() if value}}
