# SPDX-License-Identifier: Apache-2.0
"""A segment whose engine a machine is to build: what it is made of, and the key it is stored by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import network as networks
from . import program
from .builders import BUILDERS, Builder, Site
from .bundle import Bundle
from .engine_store import StoredEngine, content_of, engine_key
from .engines import engine as engine_module
from .engines._options import BuildOptions
from .errors import BundleError
from .manifest import EngineRef, Variant
from .network import Network


@dataclass(frozen=True)
class SegmentJob:
    """A segment whose engine this machine is to build or has built."""

    bundle: Bundle
    variant: str
    segment: str
    ref: EngineRef
    options: Mapping[str, Any]
    target: Mapping[str, Any]
    network: Network
    content: str

    @property
    def builder(self) -> Builder:
        """How it is built."""
        return BUILDERS[self.ref.kind]

    def site(self, facts: Mapping[str, Any]) -> Site:
        """A machine, to build it for its target."""
        return Site(facts, self.target)

    def key(self, facts: Mapping[str, Any]) -> str:
        """Where its engine of a machine is in that machine's store."""
        return engine_key(self.builder.parts(self.content, self.options, self.site(facts)))


def buildable(bundle: Bundle, variant: str) -> dict[str, EngineRef]:
    """The segments of a variant with an engine of a kind that devices build."""
    segments = _networks(bundle, bundle.manifest.variants[variant])
    engines = bundle.manifest.variants[variant].engines
    return {n: ref for n, ref in engines.items() if ref.kind in BUILDERS and n in segments}


def segment_job(bundle: Bundle, variant: str, segment: str) -> SegmentJob:
    """The job of a segment that has an engine of a kind that devices build.

    Raises:
        BundleError: its build options are malformed.
    """
    described = bundle.manifest.variants[variant]
    ref = described.engines[segment]
    network = networks.from_bytes(bundle.member(_networks(bundle, described)[segment]))
    content = ref.content or _content(bundle, network)
    options = _options(bundle, segment, ref)
    return SegmentJob(bundle, variant, segment, ref, options, described.target, network, content)


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
    has = _content(job.bundle, job.network)
    if has != job.ref.content:
        raise BundleError(
            f"{job.bundle.path}: the engine of {job.segment} is said to compute "
            f"{job.ref.content[:12]}, its network and weights are {has[:12]}",
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


def _networks(bundle: Bundle, variant: Variant) -> dict[str, str]:
    """The network members of a variant's segments by name."""
    return {
        segment.name: segment.network
        for member in variant.programs.values()
        for segment in program.from_json(bundle.json(member)).segments
        if segment.network is not None
    }


def _content(bundle: Bundle, network: Network) -> str:
    weights = bundle.weights
    wanted = {constant.data for constant in network.constants.values()}
    digests = {n: hashlib.sha256(v.buffer).hexdigest() for n, v in weights.items() if n in wanted}
    return content_of(network, digests)
