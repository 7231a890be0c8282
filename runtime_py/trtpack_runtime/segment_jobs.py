# SPDX-License-Identifier: Apache-2.0
"""A segment whose engine a machine is to build: what it is made of, and the key it is stored by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import network as networks
from . import program
from .builders import BUILDERS, OnEvent, Outcome, Site, Work
from .bundle import Bundle
from .compiling import (
    KIND,
    Source,
    cannot_compile,
    compile_segment,
    constants_of,
    imported_modules,
    parts,
)
from .device_tactics import chosen_tactics
from .engine_store import StoredEngine, content_of, engine_key
from .engines import engine as engine_module
from .engines._options import BuildOptions
from .errors import BundleError
from .manifest import EngineRef, Variant
from .network import Network
from .program import Segment


@dataclass(frozen=True)
class SegmentJob:
    """A segment whose engine this machine is to build or has built: TensorRT of its ``network``, or
    PyTorch of its ``source``. ``tactics`` are digests of those that were chosen for it, if any."""

    bundle: Bundle
    variant: str
    segment: str
    ref: EngineRef
    options: Mapping[str, Any]
    target: Mapping[str, Any]
    content: str
    network: Network | None = None
    source: Source | None = None
    tactics: Sequence[str] | None = None

    @property
    def portable(self) -> Network:
        """The network of what TensorRT builds."""
        assert self.network is not None
        return self.network

    @property
    def count(self) -> int:
        """How many layers it has, or operators."""
        return self.source.operators if self.source else len(self.portable.layers)

    @property
    def parts(self) -> str:
        """What ``count`` counts."""
        return "operators" if self.source else "layers"

    def cannot_build(self, facts: Mapping[str, Any]) -> str | None:
        """Why a machine cannot build it, as a clause, or None."""
        return cannot_build(self.ref.kind, self.target, facts)

    def key(self, facts: Mapping[str, Any]) -> str:
        """Where its engine of a machine is in that machine's store."""
        site = Site(facts, self.target)
        if self.source is not None:
            return engine_key(parts(self.content, site))
        needed = BUILDERS[self.ref.kind].parts(self.content, self.options, site)
        return engine_key({**needed, "tactics": self.tactics} if self.tactics else needed)

    def build(
        self, path: Path, facts: Mapping[str, Any], tactics: bytes | None, on_event: OnEvent
    ) -> Outcome:
        """Builds it in a child process; ``tactics`` is a timing cache to begin with.

        Raises:
            EngineBuildError: TensorRT or the compiler refused, or its process died.
        """
        weights = [self.bundle.file_part(name) for name in self.bundle.manifest.weights.members]
        site = Site(facts, self.target)
        if self.source is not None:
            imports = imported_modules(self.bundle.manifest)
            return compile_segment(self.source, weights, path, site, imports=imports)
        work = Work(self.segment, self.portable, weights, self.options, tactics)
        return BUILDERS[self.ref.kind].build(work, path, site, on_event)


def cannot_build(
    kind: str, target: Mapping[str, Any], facts: Mapping[str, Any], *, to_run: bool = False
) -> str | None:
    """Why a machine cannot build an engine for a target, or with ``to_run`` none that it runs; None
    where it can."""
    site = Site(facts, target)
    if kind == KIND:
        return cannot_compile(site)
    return BUILDERS[kind].cannot_run(site) if to_run else BUILDERS[kind].cannot_build(site)


def buildable(bundle: Bundle, variant: str) -> dict[str, EngineRef]:
    """The segments of a variant with an engine that a device builds: of TensorRT's kinds, and what
    PyTorch runs between those, compiled."""
    described = bundle.manifest.variants[variant]
    segments = _segments(bundle, described)
    return {
        name: ref
        for name, ref in described.engines.items()
        if name in segments
        and (
            (ref.kind in BUILDERS and segments[name].network is not None)
            or (described.is_optional(name) and ref.options and segments[name].graph is not None)
        )
    }


def segment_job(bundle: Bundle, variant: str, segment: str) -> SegmentJob:
    """The job of a segment that has an engine of a kind that devices build.

    Raises:
        BundleError: its build options are malformed.
    """
    described = bundle.manifest.variants[variant]
    ref = described.engines[segment]
    found, target = _segments(bundle, described)[segment], described.target
    if found.network is None:
        assert found.graph is not None
        source = Source.of(found.graph, ref.options)
        content = ref.content or _content(bundle, source)
        return SegmentJob(
            bundle, variant, segment, ref, ref.options, target, content, source=source
        )
    network = networks.from_bytes(bundle.member(found.network))
    content = ref.content or _content(bundle, network)
    options = _options(bundle, segment, ref)
    tactics = chosen_tactics(bundle, described.caches) if ref.kind == "tensorrt" else None
    return SegmentJob(
        bundle, variant, segment, ref, options, target, content, network, tactics=tactics
    )


def suffix(kind: str) -> str:
    """How the names of an engine kind's files end."""
    return ".pt2" if kind == KIND else ".plan"


def device_name(facts: Mapping[str, Any]) -> str | None:
    """The name of a machine's GPU."""
    gpus = facts.get("gpus") or ()
    return gpus[0]["name"] if gpus else None


def about_engine(job: SegmentJob, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the store tells people of its engine."""
    return {
        "model": job.bundle.manifest.name,
        "target": job.variant,
        "segment": job.segment,
        "content": job.content,
        "device": device_name(facts),
        "kind": job.ref.kind,
    }


def check_content(job: SegmentJob) -> None:
    """BundleError where the manifest claims another content: the store is shared by all bundles."""
    if job.ref.content is None:
        return
    has = _content(job.bundle, job.source or job.portable)
    if has != job.ref.content:
        raise BundleError(
            f"{job.bundle.path}: the engine of {job.segment} is said to compute "
            f"{job.ref.content[:12]}, what is in it computes {has[:12]}",
            hint="build the bundle again",
            wants=job.ref.content,
            has=has,
        )


def usable(stored: StoredEngine | None, kind: str, facts: Mapping[str, Any]) -> StoredEngine | None:
    """A stored engine unless its record says that it does not run here.

    A machine without a GPU may keep engines for another: only what the record says against the
    builder's own version counts there.
    """
    if stored is None or not facts.get("gpus"):
        return stored
    try:
        runs = engine_module(kind).check(stored.record, facts).usable
    except KeyError:
        runs = False
    return stored if runs else None


def _options(bundle: Bundle, segment: str, ref: EngineRef) -> Mapping[str, Any]:
    """What the bundle says, else what its engine for other devices was built with; all of them."""
    try:
        given = ref.options or ref.record.get("options") or {}
        return BuildOptions.from_json(given).to_json()
    except (TypeError, ValueError, KeyError) as error:
        raise BundleError(
            f"{bundle.path}: malformed build options of {segment}: {error}",
            hint="build the bundle again",
        ) from error


def _segments(bundle: Bundle, variant: Variant) -> dict[str, Segment]:
    """A variant's segments by name."""
    return {
        segment.name: segment
        for member in variant.programs.values()
        for segment in program.from_json(bundle.json(member)).segments
    }


def _content(bundle: Bundle, what: Network | Source) -> str:
    weights = bundle.weights
    if isinstance(what, Source):
        wanted = set(constants_of(what.graph))
    else:
        wanted = {constant.data for constant in what.constants.values()}
    digests = {n: hashlib.sha256(v.buffer).hexdigest() for n, v in weights.items() if n in wanted}
    return what.content(digests) if isinstance(what, Source) else content_of(what, digests)
