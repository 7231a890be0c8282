# SPDX-License-Identifier: Apache-2.0
"""``trtpack inspect``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from trtpack_runtime import network, program
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.cli.text import clean, columns, plural, shape, size, wrapped
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.manifest import EngineRef, Method, TensorSpec, Variant

EXAMPLES = """\b
Examples:
  trtpack inspect bundle.tar
  trtpack inspect --members bundle.tar
  trtpack inspect bundle.tar --engine forward_0 --target h200
  trtpack inspect bundle.tar --engine forward_0 --detailed
  trtpack inspect --json bundle.tar | jq '.variants | keys'
"""

_SHOWN_OPERATORS = 12


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--members", is_flag=True, help="List every member with its size and digest.")
@click.option("--operators", is_flag=True, help="List every operator, not only the most frequent.")
@click.option(
    "--engine",
    "segment",
    metavar="SEGMENT",
    help="Show a TensorRT engine: layers, tactics, formats, memory. Needs its TensorRT and a GPU.",
)
@click.option(
    "--detailed", is_flag=True, help="Build the engine again with details, to show all of --engine."
)
@click.option("-t", "--target", metavar="NAME", help="The variant the segment of --engine is of.")
@click.option("--trust", is_flag=True, help="Let code inside the engine run, for --engine.")
def inspect(
    bundle: Path,
    as_json: bool,
    members: bool,
    operators: bool,
    segment: str | None,
    detailed: bool,
    target: str | None,
    trust: bool,
) -> None:
    """Show what BUNDLE holds: targets, segments, operators, sizes, digests, inputs and outputs.

    Nothing is loaded or run, and neither PyTorch nor TensorRT is needed, but for --engine.
    """
    opened = open_bundle(bundle)
    if segment is not None:
        _inspect_engine(opened, segment, target, detailed, trust, as_json)
        return
    if target is not None or detailed or trust:
        raise ConfigError(
            "--target, --detailed and --trust are for the engine of a segment",
            hint="add --engine SEGMENT",
        )
    described = describe(opened)
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    for part in _parts(opened, described, members, operators):
        click.echo(part)


def _inspect_engine(
    bundle: Bundle, segment: str, target: str | None, detailed: bool, trust: bool, as_json: bool
) -> None:
    from trtpack_runtime.device import facts
    from trtpack_runtime.segments import find_segment

    from ..engine_layers import inspect_engine
    from .engine_text import inspected

    found = find_segment(bundle, segment, target)
    if detailed and sys.stderr.isatty():
        click.echo(f"building {found} with details", err=True)
    engine = inspect_engine(bundle, found, facts(), detailed=detailed, trust=trust)
    if as_json:
        about = {"target": found.variant, "segment": found.name, "engine": found.kind}
        click.echo(json.dumps(about | engine.to_json(), indent=2))
        return
    for part in inspected(found, engine):
        click.echo(part)


def describe(bundle: Bundle) -> dict[str, Any]:
    """The manifest with what can be read off the members: segments, layers, stored tensors."""
    manifest = bundle.manifest
    value = manifest.to_json()
    value["bundle"] = {
        "path": str(bundle.path),
        "size": bundle.path.stat().st_size,
        "digest": bundle.digest,
    }
    weights = bundle.weights
    value["weights"]["tensors"] = len(weights)
    value["weights"]["bytes"] = sum(v.nbytes for v in weights.values() if not v.same_as)
    for name, variant in manifest.variants.items():
        value["variants"][name]["segments"] = {
            method: [
                _segment(bundle, variant, segment)
                for segment in program.from_json(bundle.json(member)).segments
            ]
            for method, member in variant.programs.items()
        }
        for kind, cache in variant.caches.items():
            value["variants"][name]["caches"][kind].update(_cache(bundle, cache))
    return value


def _cache(bundle: Bundle, cache: Mapping[str, Any]) -> dict[str, Any]:
    """A tactic cache's size and how many tactics it has, None where TensorRT does not tell."""
    lock = None if cache["lock"] is None else bundle.json(cache["lock"])
    tactics = lock.get("tactics") if isinstance(lock, dict) else None
    count = len(tactics) if isinstance(tactics, list) else None
    return {"bytes": bundle.entries[cache["member"]].size, "tactics": count}


def _segment(bundle: Bundle, variant: Variant, segment: program.Segment) -> dict[str, Any]:
    if segment.network is not None:
        kinds = [layer.kind for layer in network.from_json(bundle.json(segment.network)).layers]
    else:
        kinds = [str(node["op"]) for node in (segment.graph or {}).get("nodes", ())]
    counts = sorted(Counter(kinds).items(), key=lambda pair: (-pair[1], pair[0]))
    engine = variant.engines.get(segment.name, EngineRef("reference"))
    return {
        "name": segment.name,
        "kind": segment.kind,
        "operators": dict(counts),
        "engine": engine.kind,
        "engine_bytes": None if engine.member is None else bundle.entries[engine.member].size,
        "deferred": engine.deferred,
    }


def _parts(
    bundle: Bundle, described: Mapping[str, Any], members: bool, operators: bool
) -> Iterator[str]:
    manifest = bundle.manifest
    yield f"{clean(manifest.name)}  ({bundle.path}, {size(described['bundle']['size'])})"
    rows = [
        ("format", f"{described['schema']}, written by {manifest.producer}"),
        ("digest", bundle.digest),
        ("requires", ", ".join(manifest.requires)),
        ("weights", _weights(described["weights"])),
    ]
    if manifest.state:
        slots = (f"{s.name} {s.dtype.lower()} {shape(s.shape)}" for s in manifest.state)
        rows.append(("state", ", ".join(slots)))
    if manifest.metadata:
        entries = (_brief(key, value) for key, value in manifest.metadata.items())
        rows.append(("metadata", ", ".join(entries)))
    if isinstance(golden := manifest.report.get("golden"), str):
        rows.append(("golden", golden))
    if isinstance(precision := manifest.report.get("precision"), str):
        rows.append(("precision", precision))
    yield columns(rows)
    for name, method in manifest.methods.items():
        yield f"\n{clean(name)}()"
        yield columns(_values(method))
    for name, variant in manifest.variants.items():
        yield "\n" + _target(name, variant, described["variants"][name])
    counts = manifest.report.get("operators")
    if isinstance(counts, dict) and counts and all(type(c) is int for c in counts.values()):
        yield "\n" + _operators(counts, manifest.report, operators)
    if members:
        yield f"\nmembers ({len(manifest.members)})"
        yield columns((e.name, size(e.size), e.sha256) for e in manifest.members)
    else:
        total = sum(entry.size for entry in manifest.members)
        count = plural(len(manifest.members), "member")
        yield f"\n{count}, {size(total)}; list them with --members"


def _weights(weights: Mapping[str, Any]) -> str:
    stored = plural(weights["tensors"], "tensor")
    parameters = plural(len(weights["parameters"]), "parameter")
    buffers = plural(len(weights["buffers"]), "buffer")
    return f"{size(weights['bytes'])} in {stored} ({parameters}, {buffers})"


def _values(method: Method) -> Iterator[tuple[str, ...]]:
    for label, tensors in (("in", method.inputs), ("out", method.outputs)):
        for tensor in tensors:
            yield label, tensor.name, tensor.dtype.lower(), _shape(tensor)
    if method.golden:
        followed = ", ".join(dict.fromkeys(name for g in method.golden for name in g.follows))
        after = f", after {followed}" if followed else ""
        yield "proof", plural(len(method.golden), "golden sample") + after


def _shape(tensor: TensorSpec) -> str:
    """``1..8x3, best 4x3``; a size that follows from another input is an expression."""
    if tensor.min is None or tensor.max is None or tensor.min == tensor.max:
        return shape(tensor.shape)
    parts = [
        f"{low}..{high}" if size == dim(tensor.name, axis) and low != high else shape([size])
        for axis, (size, low, high) in enumerate(
            zip(tensor.shape, tensor.min, tensor.max, strict=True)
        )
    ]
    return f"{'x'.join(parts)}, best {shape(tensor.opt or tensor.max)}"


def _target(name: str, variant: Variant, described: Mapping[str, Any]) -> str:
    target = variant.target
    facts = [str(target["kind"])]
    title = "TensorRT-RTX" if target["kind"] == "tensorrt-rtx" else "TensorRT"
    for key, label in (("sm", "sm"), ("tensorrt", title), ("stack", ""), ("arch", "")):
        if target.get(key) and str(target[key]) not in facts:
            facts.append(f"{label} {target[key]}".strip())
    lines = [wrapped(f"target {clean(name)}  ({clean(', '.join(facts))})", rest=" " * 4)]
    for method, segments in described["segments"].items():
        prefix = f"{method}: " if len(described["segments"]) > 1 else ""
        rows = [(prefix + s["name"], _content(s), _engine(s)) for s in segments]
        if not rows:
            lines.append(f"  {prefix}no segment: the outputs are constants or inputs")
            continue
        for text, segment in zip(columns(rows).splitlines(), segments, strict=True):
            lines.append(text)
            if segment["deferred"]:
                lines.append(wrapped(clean(segment["deferred"]), first=" " * 4, rest=" " * 4))
    for kind, cache in described.get("caches", {}).items():
        lines.append(wrapped(clean(f"  {kind} cache  {_known(cache)}"), rest=" " * 4))
    return "\n".join(lines)


def _known(cache: Mapping[str, Any]) -> str:
    """What a tactic cache has, and which devices it is good for."""
    key = cache["key"]
    count = "" if cache["tactics"] is None else f", {plural(cache['tactics'], 'tactic')}"
    parts = [str(key[k]) for k in ("device", "module") if key.get(k)]
    parts += [
        f"{label} {key[k]}" for k, label in (("sm", "SM"), ("tensorrt", "TensorRT")) if key.get(k)
    ]
    return f"{size(cache['bytes'])}{count}, for {', '.join(parts)}"


def _content(segment: Mapping[str, Any]) -> str:
    noun = "layer" if segment["kind"] == "network" else "operator"
    return plural(sum(segment["operators"].values()), noun)


def _engine(segment: Mapping[str, Any]) -> str:
    if segment["deferred"]:
        return f"{segment['engine']}, deferred to the device:"
    if segment["engine_bytes"] is None:
        where = "network" if segment["kind"] == "network" else "ATen graph"
        return f"{segment['engine']}, nothing built: PyTorch runs the {where}"
    own = ", its weights included" if segment["engine"] == "tensorrt-rtx" else ""
    return f"{segment['engine']}, {size(segment['engine_bytes'])}{own}"


def _operators(counts: Mapping[str, Any], report: Mapping[str, Any], everything: bool) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked if everything else ranked[:_SHOWN_OPERATORS]
    lines = [f"operators ({sum(counts.values())}, of {plural(len(counts), 'kind')})"]
    lines.append(columns((str(count), name) for name, count in shown))
    if len(shown) < len(ranked):
        lines.append(f"  and {len(ranked) - len(shown)} more kinds; list them with --operators")
    for target, facts in dict(report.get("targets") or {}).items():
        refused = facts.get("refused") if isinstance(facts, dict) else None
        if refused:
            lines.append(f"  left to PyTorch for {clean(target)}:")
            rows = ((str(r["count"]), str(r["op"]), str(r["reason"])) for r in refused)
            lines.append(columns(rows, indent=4))
    return "\n".join(lines)


def _brief(key: str, value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{clean(key)} ({plural(len(value), 'entry').replace('entrys', 'entries')})"
    return clean(key)
