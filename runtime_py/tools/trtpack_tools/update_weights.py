# SPDX-License-Identifier: Apache-2.0
"""Gives a bundle other weights without building it again, and proves the outcome on this machine.

Networks and programs stay as they are: they hold no values. Engines that read their weights from
the bundle stay too, and are refitted when they are loaded; those that hold changed weights inside
are left to the device. Golden outputs are computed anew by the runtime's evaluator.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trtpack_runtime import __version__, smoke
from trtpack_runtime.atomic import cannot_write
from trtpack_runtime.beginnings import state_before
from trtpack_runtime.borders import noting
from trtpack_runtime.bundle import Bundle, Member, open_bundle
from trtpack_runtime.compiling import Source
from trtpack_runtime.engine_store import content_of
from trtpack_runtime.engines import Verdict
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.execution import Segments
from trtpack_runtime.loading import DegradedWarning, load
from trtpack_runtime.manifest import (
    Border,
    EngineRef,
    Golden,
    Manifest,
    Method,
    Variant,
    in_order,
)
from trtpack_runtime.new_values import Contents, contents_of
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.recipes import sources
from trtpack_runtime.refitting import is_inlined, refit_problem
from trtpack_runtime.resolve import Candidate, Choice
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.safetensors import TensorView, open_safetensors, write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_runtime.segment_loading import load_segments
from trtpack_runtime.segments import TENSORRT_KINDS
from trtpack_runtime.smoke import SmokeReport

from .new_weights import read_state, write_stored

GOLDEN_NOTE = "golden"


@dataclass(frozen=True)
class Updated:
    """What became of a bundle.

    ``changed`` are the ``state_dict`` names with other values, ``derived`` how many constants were
    computed anew. ``kept`` are the engines that read the new weights, ``dropped`` those that the
    device builds again with the reason, each by variant and segment. ``reports`` are the golden
    samples of every variant as this machine ran it.
    """

    bundle: Bundle
    changed: tuple[str, ...]
    derived: int
    kept: Mapping[tuple[str, str], str]
    dropped: Mapping[tuple[str, str], str]
    reports: Mapping[str, SmokeReport]


def update_weights(
    bundle: Bundle,
    file: Path,
    path: Path,
    *,
    cast: bool = False,
    trust: bool = False,
    imports: Sequence[str] = (),
) -> Updated:
    """Writes ``bundle`` with the weights of a safetensors file to ``path``, which may be its own.

    Args:
        bundle: the bundle.
        file: the new ``state_dict``.
        path: where the new bundle goes; it appears there whole, once it is proved.
        cast: convert floating-point weights to the bundle's types.
        trust: run machine code of the bundle that another machine built, to prove it.
        imports: modules to import first, which register custom operators.

    Raises:
        ConfigError: the weights are not those of this model, or the disk refuses.
        BundleError: a damaged file, or a constant whose new value the bundle does not tell.
        SmokeFailure: an engine does not compute what the evaluator does; nothing is written.
    """
    state = read_state(bundle, file, cast=cast)
    contents = contents_of(bundle)
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=".trtpack-", dir=path.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise cannot_write(path, error) from error
    with folder as scratch:
        files, changed = write_stored(bundle, state, contents, Path(scratch))
        views = {n: view for f in files.values() for n, view in open_safetensors(f).items()}
        manifest, kept, dropped = _with_engines(bundle, contents, views, changed)
        golden: dict[str, Path] = {}
        if changed:
            golden, methods = _golden(bundle, contents, views, Path(scratch))
            manifest = _noted(replace(manifest, methods={**manifest.methods, **methods}))
        draft = Path(scratch) / "bundle.tar"
        added = [Member(name, source) for name, source in {**files, **golden}.items()]
        rewrite(bundle, draft, manifest=manifest, add=added, drop=_unused(bundle, manifest))
        reports = _proved(draft, trust=trust, imports=imports)
        try:
            if path.exists():
                draft.chmod(path.stat().st_mode & 0o777)
            draft.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error
    names = {**bundle.manifest.weights.parameters, **bundle.manifest.weights.buffers}
    return Updated(
        open_bundle(path),
        tuple(name for name, stored in names.items() if stored in changed),
        len(changed - set(names.values())),
        kept,
        dropped,
        reports,
    )


def _with_engines(
    bundle: Bundle, contents: Contents, views: Mapping[str, TensorView], changed: frozenset[str]
) -> tuple[Manifest, dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """The manifest with what becomes of every engine."""
    digests = {name: hashlib.sha256(view.buffer).hexdigest() for name, view in views.items()}
    kept: dict[tuple[str, str], str] = {}
    dropped: dict[tuple[str, str], str] = {}
    variants = {}
    for name, variant in bundle.manifest.variants.items():
        segments = {
            s.name: s for m in variant.programs.values() for s in contents.programs[m].segments
        }
        refs = dict(variant.engines)
        for segment, ref in variant.engines.items():
            if segment not in segments:
                continue
            new, why = _engine(ref, segments[segment], contents, views, digests, changed)
            refs[segment] = new
            if why is not None and ref.member is not None:
                (kept if new.member is not None else dropped)[name, segment] = why
        variants[name] = replace(variant, engines=refs)
    return replace(bundle.manifest, variants=variants), kept, dropped


def _engine(
    ref: EngineRef,
    segment: Segment,
    contents: Contents,
    views: Mapping[str, TensorView],
    digests: Mapping[str, str],
    changed: frozenset[str],
) -> tuple[EngineRef, str | None]:
    """An engine as it goes on, and why; None where nothing that it reads has changed."""
    if segment.network is None:
        if ref.content is not None and segment.graph is not None:
            content = Source.of(segment.graph, ref.options).content(digests)
            ref = replace(ref, content=content)
        read = set(sources(segment.graph)) & changed
        inlined = sorted(name for name in read if is_inlined(views[name].shape))
        if not read or ref.member is None:
            return ref, None
        if ref.record.get("weights") == "inside":
            return _left(ref, "it holds them inside"), "it holds them inside"
        if inlined:
            return _left(ref, f"{inlined[0]} is a part of its code"), "holds small weights inside"
        return ref, "reads the weights from the bundle"
    network = contents.networks[segment.network]
    if ref.content is not None:
        ref = replace(ref, content=content_of(network, digests))
    if not {constant.data for constant in network.constants.values()} & changed:
        return ref, None
    if ref.member is None:
        return ref, None
    problem = "it holds them inside"
    if ref.kind in TENSORRT_KINDS and ref.record.get("weights") in ("refittable", "stripped"):
        problem = refit_problem(network, changed, ref.record) or ""
    if problem:
        return _left(ref, problem), problem
    return replace(ref, record={**ref.record, "refit": True}), "is refitted when it is loaded"


def _left(ref: EngineRef, problem: str) -> EngineRef:
    """An engine that has to be built again."""
    text = f"built with other weights, and {problem}"
    return replace(ref, member=None, record={}, deferred=text)


def _golden(
    bundle: Bundle, contents: Contents, views: Mapping[str, TensorView], folder: Path
) -> tuple[dict[str, Path], dict[str, Method]]:
    """The golden samples with the outputs of the new weights, by member; and the methods with what
    crosses between segments then."""
    stored = {name: view.tensor() for name, view in views.items()}
    written: dict[str, Path] = {}
    methods: dict[str, Method] = {}
    left: dict[str, dict[str, torch.Tensor]] = {}
    for name in in_order(bundle.manifest.methods):
        method = bundle.manifest.methods[name]
        if not method.golden:
            continue
        variant = _most_portable(bundle.manifest, name)
        program = contents.programs[bundle.manifest.variants[variant].programs[name]]
        borders: list[dict[str, Border]] = []
        known = {value for sample in method.borders for value in sample}
        segments = _evaluators(bundle, variant, program, stored)
        samples = smoke.golden_samples(bundle, method, torch.device("cpu"))
        for golden, sample in zip(method.golden, samples, strict=True):
            borders.append({})
            watched = segments.watched(noting(known, borders[-1]))
            before = state_before(bundle.manifest, golden, left.__getitem__)
            made = _run(bundle, watched, program, stored, sample.inputs, before)
            _check_finite(method, *made)
            path = folder / f"golden-{len(written)}"
            write_safetensors(path, _tensors(bundle, golden, *made))
            written[golden.member] = path
            left[golden.member] = {f"state.{slot}": value for slot, value in made[1].items()}
        methods[name] = replace(method, borders=tuple(borders))
    return written, methods


def _run(
    bundle: Bundle,
    segments: Segments,
    program: Program,
    stored: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    before: Mapping[str, torch.Tensor],
) -> tuple[list[torch.Tensor], Mapping[str, torch.Tensor]]:
    states = {slot.name: stored[slot.initial] for slot in bundle.manifest.state} | dict(before)
    states = {name: value.clone() for name, value in states.items()}
    with torch.no_grad():
        outputs, after = segments.run(program, inputs, stored, states)
    return [value for value in outputs if isinstance(value, torch.Tensor)], {**states, **after}


def _evaluators(
    bundle: Bundle, variant: str, program: Program, stored: Mapping[str, torch.Tensor]
) -> Segments:
    """A program with every segment in PyTorch, whatever engines there are."""
    none = Candidate(variant, Verdict("impossible", "only the evaluator is wanted"), {})
    choice = Choice(none, True, (none,))
    return load_segments(bundle, choice, (program,), stored, torch.device("cpu"))


def _most_portable(manifest: Manifest, method: str) -> str:
    """A variant with the method, one that runs ATen operators where there is one."""
    having = [name for name, variant in manifest.variants.items() if method in variant.programs]
    if not having:
        raise ConfigError(f"no variant has the method {method}", hint="build the bundle again")
    return min(having, key=lambda name: _on_tensorrt(manifest.variants[name]))


def _on_tensorrt(variant: Variant) -> bool:
    return any(ref.kind in TENSORRT_KINDS for ref in variant.engines.values())


def _tensors(
    bundle: Bundle,
    golden: Golden,
    outputs: Sequence[torch.Tensor],
    states: Mapping[str, torch.Tensor],
) -> list[StoredTensor]:
    """The tensors of a golden sample in their old order, inputs as they were."""
    new = dict(zip(golden.outputs, outputs, strict=True))
    new |= {name: states[name.removeprefix("state.")] for name in golden.states}
    views = bundle.tensors(golden.member)
    return [
        StoredTensor(name, (new[name] if name in new else view.tensor()).contiguous())
        for name, view in views.items()
    ]


def _check_finite(
    method: Method, outputs: Sequence[torch.Tensor], states: Mapping[str, torch.Tensor]
) -> None:
    for spec, value in zip(method.outputs, outputs, strict=True):
        if value.is_floating_point() and value.numel() and not value.isfinite().any():
            raise ConfigError(
                f"with these weights the output {spec.name} has no finite number",
                hint="check the weights",
            )


def _noted(manifest: Manifest) -> Manifest:
    """The manifest, which says whose the golden outputs are."""
    note = f"outputs by the evaluator of trtpack-runtime {__version__}, after update-weights"
    return replace(manifest, report={**manifest.report, GOLDEN_NOTE: note})


def _proved(path: Path, *, trust: bool, imports: Sequence[str]) -> dict[str, SmokeReport]:
    """Every variant's golden samples, on the engines that fit this machine.

    Raises:
        BundleError: an engine that fits this machine does not load.
        SmokeFailure: an output is outside its tolerance.
    """
    manifest = open_bundle(path, verify="full").manifest
    reports = {}
    for name in manifest.variants:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegradedWarning)  # this machine need not be the device
            loaded = load(path, target=name, build=False, trust=trust, imports=imports)
        for segment, reason in loaded.failed_engines.items():
            raise BundleError(
                f"the engine of {segment} of {name} does not load with these weights: {reason}",
                hint="build the bundle again",
            )
        reports[name] = loaded.smoke()
        reports[name].raise_for_failure()
    return reports


def _unused(bundle: Bundle, manifest: Manifest) -> list[str]:
    """The members of engines that are no longer there."""
    before = {member for _, member in bundle.manifest.references()}
    return sorted(before - {member for _, member in manifest.references()})
