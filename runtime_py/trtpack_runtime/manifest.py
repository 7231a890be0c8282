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

from .checked_json import MalformedError, Place, canonical, parse
from .errors import BundleError, ConfigError
from .manifest_methods import (
    Border,
    Golden,
    Limits,
    Method,
    TensorSpec,
    borders_json,
    in_order,
    method_json,
    read_dtype,
    read_method,
)
from .manifest_variants import EngineRef, Variant, read_digest, read_variant, variant_json
from .tar_layout import FORMAT, Entry, check_name

__all__ = [
    "Border",
    "EngineRef",
    "Golden",
    "Limits",
    "Manifest",
    "Method",
    "StateTensor",
    "TensorSpec",
    "Variant",
    "Weights",
    "borders_json",
    "in_order",
]

_SCHEMA = re.compile(r"trtpack\.bundle/(\d+)")
_REQUIREMENT = re.compile(
    r"format:1|golden:follows|torch>=\d+(\.\d+)*|module:[^\W\d]\w*(\.[^\W\d]\w*)*"
)


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
            "methods": {name: method_json(method) for name, method in self.methods.items()},
            "state": [
                {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "initial": s.initial}
                for s in self.state
            ],
            "weights": {
                "members": list(self.weights.members),
                "parameters": dict(self.weights.parameters),
                "buffers": dict(self.weights.buffers),
            },
            "variants": {name: variant_json(v) for name, v in self.variants.items()},
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
    methods = top["methods"].mapping(read_method)
    in_order(methods)
    return Manifest(
        name=top["name"].string(),
        producer=top["producer"].string(),
        requires=top["requires"].each(_requirement),
        members=members,
        methods=methods,
        state=top["state"].each(_state),
        weights=_weights(top["weights"]),
        variants=top["variants"].mapping(read_variant),
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
    return Entry(name, place["size"].integer(), read_digest(place["sha256"]))


def _state(place: Place) -> StateTensor:
    return StateTensor(
        place["name"].string(),
        read_dtype(place["dtype"]),
        place["shape"].each(Place.integer),
        place["initial"].string(),
    )


def _weights(place: Place) -> Weights:
    return Weights(
        place["members"].each(Place.string),
        place["parameters"].mapping(Place.string),
        place["buffers"].mapping(Place.string),
    )
