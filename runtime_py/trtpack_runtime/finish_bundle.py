# SPDX-License-Identifier: Apache-2.0
"""Writes a bundle with the engines this machine builds, for all devices of its kind."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import ledger, tactics
from .atomic import cannot_write
from .bundle import Bundle, Member, open_bundle
from .device_tactics import known_tactics
from .errors import ConfigError, DeviceError
from .finish import Finished, Workshop, finish_variant
from .manifest import Manifest, Variant
from .resolve import unknown_variant, verdict_of
from .rewrite import rewrite
from .segment_jobs import buildable, cannot_build, suffix
from .tactics import Tactics


@dataclass(frozen=True)
class FinishedBundle:
    """A finished bundle: what became of each variant's engines.

    ``engines`` are those built or taken from the store; ``ready`` the variants that lacked none;
    ``skipped`` says why others were left as they are; ``caches`` is the bytes of tactic caches;
    ``uncompiled`` says by variant and segment why PyTorch's own part is not compiled.
    """

    bundle: Bundle
    engines: Mapping[str, tuple[Finished, ...]]
    ready: tuple[str, ...]
    skipped: Mapping[str, str]
    caches: Mapping[str, int]
    uncompiled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def finish_bundle(
    bundle: Bundle,
    path: Path,
    shop: Workshop,
    *,
    target: str | None = None,
    compiled: bool = True,
) -> FinishedBundle:
    """Builds what this machine can build of ``bundle``, or of its variant ``target``, and writes it
    to ``path``, which may be the bundle's own. Without ``compiled`` only what TensorRT builds.

    Raises:
        ConfigError: no variant ``target``, or the disk refuses; what was at ``path`` is kept.
        DeviceError: nothing that lacks an engine can be built here.
        EngineBuildError: TensorRT refused; the engines built before it are in the store.
        BundleError: the bundle is damaged, or was replaced meanwhile.
    """
    _check_path(path)
    variants = bundle.manifest.variants
    if target is not None and target not in variants:
        raise unknown_variant(target, list(variants))
    lacking, ready, skipped, uncompiled = _sorted_out(bundle, target, shop, compiled)
    if skipped and not lacking:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise DeviceError(
            f"cannot build the engines of {bundle.path} here: {reasons}",
            hint="run it on such a device, trtpack doctor shows what this one is",
        )
    engines = {}
    for name, segments in lacking.items():

        def note(segment: str, error: Exception, name: str = name) -> None:
            if not variants[name].is_optional(segment):
                raise error
            uncompiled.setdefault(name, {})[segment] = str(error).splitlines()[0]

        engines[name] = tuple(finish_variant(bundle, name, segments, shop, on_failure=note))
    learnt = {
        name: known
        for name, built in engines.items()
        if (known := _tactics(bundle, variants[name], built, shop)) is not None
    }
    finished = write_finished(bundle, path, engines, learnt)
    caches = {name: len(known.blob) for name, known in learnt.items()}
    return FinishedBundle(finished, engines, tuple(ready), skipped, caches, uncompiled)


def write_finished(
    bundle: Bundle,
    path: Path,
    engines: Mapping[str, tuple[Finished, ...]],
    learnt: Mapping[str, Tactics],
) -> Bundle:
    """Writes ``bundle`` to ``path`` with engines and tactics by variant, and opens that.

    Raises:
        ConfigError: the disk refuses; what was at ``path`` is kept.
        BundleError: the bundle is damaged, or was replaced meanwhile.
    """
    manifest, members = bundle.manifest, []
    for name, built in engines.items():
        manifest, added = _with(manifest, name, built, learnt.get(name))
        members += added
    rewrite(bundle, path, manifest=manifest, add=members)
    finished = open_bundle(path)
    _trust(finished, engines)
    return finished


def engine_member(variant: str, segment: str, kind: str) -> str:
    """The name of an engine's member."""
    return f"engines/{variant}/{segment}{suffix(kind)}"


def _sorted_out(
    bundle: Bundle, target: str | None, shop: Workshop, compiled: bool
) -> tuple[dict[str, list[str]], list[str], dict[str, str], dict[str, dict[str, str]]]:
    """The segments to build by variant, the variants that lack none, why not the others, and why
    what PyTorch runs in any case is not compiled."""
    lacking: dict[str, list[str]] = {}
    uncompiled: dict[str, dict[str, str]] = {}
    ready, skipped = [], {}
    for name, variant in bundle.manifest.variants.items():
        if target not in (None, name):
            continue
        found = buildable(bundle, name)
        refs = {s: ref for s, ref in found.items() if compiled or not variant.is_optional(s)}
        wanted = [
            segment
            for segment, ref in refs.items()
            if ref.member is None
            or shop.rebuild
            or verdict_of(ref, variant.target, shop.facts).fit == "rebuild"
        ]
        if not wanted:
            ready.append(name)
            continue
        reasons = {s: cannot_build(refs[s].kind, variant.target, shop.facts) for s in wanted}
        left = {s: why for s, why in reasons.items() if why is not None}
        why = next((why for s, why in left.items() if not variant.is_optional(s)), None)
        if why is not None:
            skipped[name] = why
            continue
        if left:
            uncompiled[name] = left
        if buildable_here := sorted(set(wanted) - left.keys()):
            lacking[name] = buildable_here
        else:
            ready.append(name)
    return lacking, ready, skipped, uncompiled


def _tactics(
    bundle: Bundle, variant: Variant, built: tuple[Finished, ...], shop: Workshop
) -> Tactics | None:
    """What is known of the tactics of this device after the builds; the store has the most."""
    if not any(engine.kind == "tensorrt" for engine in built):
        return None
    known = known_tactics(bundle, variant.caches, "tensorrt", shop.facts, shop.stores.tactics)
    fresh = next((e.learnt for e in reversed(built) if e.learnt is not None), None)
    return fresh or (known[0] if known else None)


def _with(
    manifest: Manifest, name: str, built: tuple[Finished, ...], known: Tactics | None
) -> tuple[Manifest, list[Member]]:
    """The manifest with a variant's engines and tactics, and their members."""
    variant = manifest.variants[name]
    members = []
    refs = dict(variant.engines)
    for engine in built:
        member = refs[engine.segment].member or engine_member(name, engine.segment, engine.kind)
        members.append(Member(member, engine.path))
        refs[engine.segment] = replace(
            refs[engine.segment], member=member, record=engine.record, deferred=None
        )
    caches = dict(variant.caches)
    if known is not None:
        cache, lock = f"caches/{name}/timing.cache", f"caches/{name}/timing.lock.json"
        members += [Member(cache, known.blob), Member(lock, tactics.to_lock(known))]
        caches["timing"] = {"member": cache, "lock": lock, "key": known.key.to_json()}
    changed = replace(variant, engines=refs, caches=caches)
    return replace(manifest, variants={**manifest.variants, name: changed}), members


def _trust(finished: Bundle, engines: Mapping[str, tuple[Finished, ...]]) -> None:
    """Writes down the digests of engines with machine code that were built here."""
    refs = [
        finished.manifest.variants[name].engines[engine.segment]
        for name, built in engines.items()
        for engine in built
    ]
    code = [ref.member for ref in refs if ref.member is not None and ledger.carries_code(ref)]
    ledger.record(finished.entries[member].sha256 for member in code)


def _check_path(path: Path) -> None:
    """Refuses a place that cannot be written before minutes are spent on builds."""
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise cannot_write(path, OSError(errno.ENOENT, "No such file or directory"))
    if not os.access(path.parent, os.W_OK):
        raise cannot_write(path, OSError(errno.EACCES, "Permission denied"))
