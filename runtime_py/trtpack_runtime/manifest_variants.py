# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of a variant: the target it is for, its programs and its engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .checked_json import Place

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EngineRef:
    """A segment's engine: a member with its compatibility record, or why there is none yet.

    ``options`` is what a device builds it with, and ``content`` a digest of what it computes: its
    network or graph and the weights that reads (``engine_store.content_of``,
    ``compiling.Source.content``).
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
    ``lock`` where there is one, the ``key`` of the devices it is good for, and ``chosen`` where the
    bundle's maker chose these tactics. With ``cuda_graphs`` its calls are replayed as CUDA graphs
    where the caller says nothing of them.
    """

    target: Mapping[str, Any]
    programs: Mapping[str, str]
    engines: Mapping[str, EngineRef]
    caches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cuda_graphs: bool = False

    def is_optional(self, segment: str) -> bool:
        """Whether a segment is PyTorch's in any case, and its engine is only that, compiled."""
        return self.engines[segment].kind == "inductor" and self.target["kind"] != "inductor"


def read_variant(place: Place) -> Variant:
    """A variant of its JSON; MalformedError for a value out of place."""
    target = place["target"]
    target["name"].string()
    target["kind"].string()
    caches, graphs = place.get("caches"), place.get("cuda_graphs")
    return Variant(
        target.object(),
        place["programs"].mapping(Place.string),
        place["engines"].mapping(_engine),
        caches.mapping(_cache) if caches else {},
        graphs.boolean() if graphs else False,
    )


def variant_json(variant: Variant) -> dict[str, Any]:
    """A variant as plain JSON values."""
    caches = {kind: dict(cache) for kind, cache in variant.caches.items()}
    return {
        "target": dict(variant.target),
        "programs": dict(variant.programs),
        "engines": {segment: _engine_json(e) for segment, e in variant.engines.items()},
        **({"caches": caches} if caches else {}),
        **({"cuda_graphs": True} if variant.cuda_graphs else {}),
    }


def read_digest(place: Place) -> str:
    """A sha256 in lower-case hex."""
    text = place.string()
    if not _DIGEST.fullmatch(text):
        place.wrong("a sha256 in lower-case hex")
    return text


def _engine(place: Place) -> EngineRef:
    member, record, deferred = (place.get(key) for key in ("member", "record", "deferred"))
    options, content = place.get("options"), place.get("content")
    return EngineRef(
        place["kind"].string(),
        member.string() if member else None,
        record.object() if record else {},
        deferred.string() if deferred else None,
        options.object() if options else {},
        read_digest(content) if content else None,
    )


def _cache(place: Place) -> dict[str, Any]:
    lock, chosen = place.get("lock"), place.get("chosen")
    return {
        "member": place["member"].string(),
        "lock": lock.string() if lock else None,
        "key": dict(place["key"].object()),
        **({"chosen": True} if chosen and chosen.boolean() else {}),
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
