# SPDX-License-Identifier: Apache-2.0
"""Writes a bundle anew with another network in one segment, such as one with precision pins."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtpack_runtime import program as programs
from trtpack_runtime import recipes
from trtpack_runtime.builders import BUILDERS, Site, Work
from trtpack_runtime.bundle import Bundle, Member
from trtpack_runtime.checked_json import canonical
from trtpack_runtime.engine_store import content_of
from trtpack_runtime.errors import InternalError
from trtpack_runtime.manifest import EngineRef, Manifest, Variant, Weights
from trtpack_runtime.mapping import FilePart
from trtpack_runtime.network import Constant, Network
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_runtime.segments import FoundSegment, every_segment

from .build_seeds import build_options, seed_tactics
from .precision_pins import new_constants

OnProgress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Pinned:
    """A bundle that was written. ``deferred`` says why the engine was not built here, ``added`` is
    what the new constants take."""

    path: Path
    manifest: Manifest
    deferred: str | None
    added_bytes: int


def write_pinned(
    bundle: Bundle,
    found: FoundSegment,
    network: Network,
    pins: Sequence[str],
    path: Path,
    facts: Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
) -> Pinned:
    """Writes ``path`` with ``network`` in the place of the segment's; other variants stay.

    The engine is built where this machine can, else the device builds it.

    Raises:
        BundleError: a constant's recipe cannot be replayed, or a member is corrupt.
        EngineBuildError: TensorRT refuses the network.
        ConfigError: the disk refuses; what was at ``path`` is kept.
    """
    if found.network is None or found.ref is None or found.segment.network is None:
        raise InternalError(f"{found} has no network")
    with tempfile.TemporaryDirectory(prefix=".trtpack-", dir=_folder(path)) as folder:
        constants = _missing(bundle, new_constants(found.network, network))
        weights = Path(folder) / "weights"
        added: list[Member] = []
        store = bundle.manifest.weights
        if constants:
            write_safetensors(weights, constants)
            member = _free(bundle, "weights/{}.safetensors")
            added.append(Member(member, weights))
            store = replace(store, members=(*store.members, member))
        parts: list[Path | FilePart] = [
            bundle.file_part(m) for m in bundle.manifest.weights.members
        ]
        parts += [weights] if constants else []
        plan = Path(folder) / "plan"
        content = content_of(network, _digests(bundle, network, constants))
        ref = _engine(bundle, found, network, content, parts, plan, facts, on_progress)
        if ref.member is not None:
            added.append(Member(ref.member, plan))
        manifest = _with_program(bundle, found, network, ref, store, added)
        manifest = replace(manifest, report=_report(manifest, found, pins))
        drop = _unused(bundle, manifest, found)
        written = rewrite(bundle, path, manifest=manifest, add=added, drop=drop)
        size = weights.stat().st_size if constants else 0
    return Pinned(path, written, ref.deferred, size)


def _engine(
    bundle: Bundle,
    found: FoundSegment,
    network: Network,
    content: str,
    weights: Sequence[Path | FilePart],
    plan: Path,
    facts: Mapping[str, Any],
    on_progress: OnProgress | None,
) -> EngineRef:
    """The engine of the new network: built into ``plan``, or deferred to the device."""
    ref = found.ref
    assert ref is not None
    options = build_options(ref)
    new = EngineRef(ref.kind, options=options.to_json(), content=content)
    site = Site(facts, bundle.manifest.variants[found.variant].target)
    reason = _cannot_build(ref, site)
    if reason is not None:
        return replace(new, deferred=f"its precision pins are new, and {reason}")
    tactics = seed_tactics(bundle, found.variant, ref.kind, facts)
    work = Work(str(found), network, weights, options.to_json(), tactics)
    outcome = BUILDERS[ref.kind].build(work, plan, site, on_progress)
    member = f"engines/{found.variant}/{found.name}.plan"
    return replace(new, member=member, record=outcome.record)


def _cannot_build(ref: EngineRef, site: Site) -> str | None:
    """Why this machine cannot build an engine in the place of another, or None."""
    if ref.kind not in BUILDERS:
        return f"engines of kind {ref.kind} are built by the packager"
    has, wants = site.facts.get("tensorrt_rtx"), ref.record.get("tensorrt_rtx")
    if ref.kind == "tensorrt-rtx" and has and wants and has != wants:
        return f"this machine has TensorRT-RTX {has}, not {wants}"
    return BUILDERS[ref.kind].cannot_build(site)


def _with_program(
    bundle: Bundle,
    found: FoundSegment,
    network: Network,
    ref: EngineRef,
    weights: Weights,
    added: list[Member],
) -> Manifest:
    """The manifest, with the changed program and network among the members to add."""
    manifest, method = bundle.manifest, found.program.method
    variant = manifest.variants[found.variant]
    name = f"networks/{network.digest()}.json"
    if name not in bundle.entries:
        added.append(Member(name, network.to_bytes()))
    segments = tuple(
        replace(segment, network=name) if segment.name == found.name else segment
        for segment in found.program.segments
    )
    member = variant.programs[method]
    users = [m for v in manifest.variants.values() for m in v.programs.values() if m == member]
    if len(users) > 1:
        member = _free(bundle, f"programs/{method}/{found.variant}-{{}}.json")
    content = programs.to_json(replace(found.program, segments=segments))
    added.append(Member(member, canonical(content)))
    changed = Variant(
        variant.target,
        {**variant.programs, method: member},
        {**variant.engines, found.name: ref},
        variant.caches,
    )
    variants = {**manifest.variants, found.variant: changed}
    return replace(manifest, variants=variants, weights=weights)


def _missing(bundle: Bundle, constants: Sequence[Constant]) -> list[StoredTensor]:
    """The stored tensors that constants need and the bundle lacks, made by their recipes."""
    stored = {name: view.tensor() for name, view in bundle.weights.items()} if constants else {}
    made: dict[str, StoredTensor] = {}
    for constant in constants:
        if constant.data not in stored and constant.data not in made:
            value = recipes.replay(dict(constant.recipe or {}), stored).reshape(constant.shape)
            made[constant.data] = StoredTensor(constant.data, value)
    return list(made.values())


def _digests(bundle: Bundle, network: Network, made: Sequence[StoredTensor]) -> dict[str, str]:
    """The sha256 of the stored tensors a network reads, by name."""
    wanted = {constant.data for constant in network.constants.values()}
    buffers = {name: view.buffer for name, view in bundle.weights.items()}
    buffers |= {tensor.name: tensor.buffer for tensor in made}
    return {n: hashlib.sha256(b).hexdigest() for n, b in buffers.items() if n in wanted}


def _unused(bundle: Bundle, manifest: Manifest, found: FoundSegment) -> list[str]:
    """Members that only the old segment needed."""
    before = {member for _, member in bundle.manifest.references()}
    after = {member for _, member in manifest.references()}
    networks = {
        other.segment.network
        for other in every_segment(bundle)
        if (other.variant, other.program.method, other.name)
        != (found.variant, found.program.method, found.name)
    }
    old = found.segment.network
    return sorted(before - after | ({old} if old and old not in networks else set()))


def _report(manifest: Manifest, found: FoundSegment, pins: Sequence[str]) -> dict[str, Any]:
    """The build report with the pins noted by target and segment."""
    noted: dict[str, Any] = dict(manifest.report.get("pins") or {})
    of_target = dict(noted.get(found.variant) or {})
    of_target[found.name] = sorted({*of_target.get(found.name, ()), *pins})
    return {**manifest.report, "pins": {**noted, found.variant: of_target}}


def _free(bundle: Bundle, pattern: str) -> str:
    """The first name of a pattern that no member has."""
    number = 0
    while pattern.format(number) in bundle.entries:
        number += 1
    return pattern.format(number)


def _folder(path: Path) -> Path | None:
    """Where temporary files go: on the disk of ``path`` if there is such a folder."""
    return path.parent if path.parent.is_dir() else None
