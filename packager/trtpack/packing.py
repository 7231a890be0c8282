# SPDX-License-Identifier: Apache-2.0
"""Writes the bundle: manifest, programs, networks, golden samples, weights, engines."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import trtpack
from trtpack_runtime import dims, program, treespec
from trtpack_runtime.archive_writer import Member
from trtpack_runtime.bundle import write_bundle
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.ledger import record as record_as_built
from trtpack_runtime.manifest import Border, Limits, Manifest, borders_json
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.tactics import Tactics, to_lock

from .aten_encoding import needs_newer_torch
from .capture import Captured, attribute, returned
from .convert import signature
from .converters.symbols import Symbols, UnknownSymbolError
from .custom_operators import required_modules
from .engines import BuiltEngine
from .golden import GoldenSample
from .program import Assembled
from .sources import Source
from .target import Target
from .weights import StoredTensor, WeightStore

WEIGHTS_MEMBER = "weights/0.safetensors"
NO_LIMITS = Limits()
TOLERANCES: Mapping[str, Mapping[str, Any]] = {
    "DOUBLE": {"rel_l2": 1e-4, "cosine": 0.9999},
    "FLOAT": {"rel_l2": 1e-3, "cosine": 0.9999},
    "HALF": {"rel_l2": 5e-2, "cosine": 0.999},
    "BF16": {"rel_l2": 1e-1, "cosine": 0.99},
}
"""What a device's outputs are judged by, by the least precise type the model computes in."""

_PRECISION = ("BF16", "HALF", "FLOAT", "DOUBLE")


@dataclass(frozen=True)
class Model:
    """What a bundle holds of the model itself, whatever it is built for."""

    source: Source
    captured: Captured
    method: str
    golden: tuple[GoldenSample, ...]
    limits: Limits = NO_LIMITS
    borders: tuple[Mapping[str, Border], ...] = ()


@dataclass(frozen=True)
class Stored:
    """The weight store, ``state_dict`` name -> stored name in it, and the file it is in."""

    store: WeightStore
    names: Mapping[str, Mapping[str, str]]
    path: Path


def store_parameters(captured: Captured, store: WeightStore) -> dict[str, dict[str, str]]:
    """Stores every parameter and persistent buffer; answers state_dict name -> stored name."""
    kinds = {"parameters": captured.parameters, "buffers": captured.buffers}
    return {
        kind: {n: store.put(n, attribute(captured.graph_module, n), follows=n) for n in names}
        for kind, names in kinds.items()
    }


def write_weights(
    store: WeightStore, names: Mapping[str, Mapping[str, str]], folder: Path
) -> Stored:
    """Writes the weight store, without a copy in memory."""
    path = folder / "weights.safetensors"
    tensors = (StoredTensor(name, tensor) for name, tensor in store.items())
    write_safetensors(path, tensors, same=store.same)
    return Stored(store, names, path)


@dataclass(frozen=True)
class Variant:
    """What one target contributes to the bundle."""

    target: Target
    assembled: Assembled
    engines: Mapping[str, BuiltEngine]
    tactics: Tactics | None = None


def write(
    path: Path,
    model: Model,
    stored: Stored,
    variants: Sequence[Variant],
    metadata: Mapping[str, Any],
    report: Mapping[str, Any],
    runtime: Sequence[Member] = (),
) -> Path:
    """Writes the bundle to ``path`` and answers it; ``runtime`` are wheels for the device.

    Raises:
        ConfigError: the disk refused; nothing is left behind.
    """
    source, captured, method = model.source, model.captured, model.method
    samples = []
    for i, sample in enumerate(model.golden):
        file = path.parent / f"golden-{i}.safetensors"
        write_safetensors(file, sample.tensors())
        samples.append(Member(f"golden/{method}-{i}.safetensors", file))
    networks = {
        f"networks/{network.digest()}.json": network.to_bytes()
        for variant in variants
        for network in variant.assembled.networks.values()
    }
    programs = [
        Member(_program_member(method, v.target), _json(program.to_json(v.assembled.program)))
        for v in variants
    ]
    engines = [
        Member(_engine_member(v.target, engine), engine.path)
        for v in variants
        for engine in v.engines.values()
        if engine.path is not None
    ]
    caches = [member for v in variants for member in _cache_members(v)]
    manifest = Manifest.from_json(
        {
            "schema": "trtpack.bundle/1",
            "producer": f"trtpack {trtpack.__version__}",
            "name": source.name,
            "requires": _requires(variants),
            "members": [],
            "methods": {method: _method(model)},
            "state": [
                {
                    "name": s.slot,
                    "dtype": by_torch(attribute(captured.graph_module, s.slot).dtype).name,
                    "shape": list(attribute(captured.graph_module, s.slot).shape),
                    "initial": stored.store.put(s.slot, attribute(captured.graph_module, s.slot)),
                }
                for s in captured.state
            ],
            "weights": {"members": [WEIGHTS_MEMBER], **stored.names},
            "variants": {v.target.name: _variant(v, method) for v in variants},
            "report": report,
            "metadata": {**source.metadata, **metadata},
        }
    )
    members = [
        *programs,
        *(Member(name, content) for name, content in sorted(networks.items())),
        *samples,
        Member(WEIGHTS_MEMBER, stored.path),
        *engines,
        *caches,
        *runtime,
    ]
    write_bundle(path, manifest, members)
    record_as_built(path)
    return path


def _method(model: Model) -> dict[str, Any]:
    source, captured, golden = model.source, model.captured, model.golden
    inputs, profile = signature(captured.graph_module, captured.ranges)
    by_name = {tensor.name: tensor for tensor in inputs}
    described = []
    for name in captured.inputs:
        if name is None:
            continue
        tensor = by_name[name]
        item: dict[str, Any] = {
            "name": name,
            "dtype": tensor.dtype,
            "shape": [dims.to_json(d) for d in tensor.shape],
        }
        if profile and name in profile.shapes:
            low, opt, high = profile.shapes[name]
            item |= {"min": list(low), "opt": list(opt), "max": list(high)}
        described.append(item)
    outputs = _outputs(captured)
    precision = compute_precision(captured)
    return {
        "inputs": described,
        "outputs": outputs,
        "in_tree": treespec.encode_call(
            captured.in_spec,
            inspect.signature(source.module.forward),
            pytree.tree_leaves((source.args, source.kwargs)),
        ),
        "out_tree": treespec.encode(captured.out_spec),
        "golden": [
            {
                "member": f"golden/{model.method}-{i}.safetensors",
                "inputs": [f"input.{k}" for k in range(len(sample.inputs))],
                "outputs": [f"output.{k}" for k in range(len(sample.outputs))],
                "states": [f"state.{slot}" for slot in sample.states],
            }
            for i, sample in enumerate(golden)
        ],
        "tolerance": {o["name"]: _tolerance(o["dtype"], precision) for o in outputs},
        "borders": borders_json(model.borders),
        "limits": asdict(model.limits),
    }


def _outputs(captured: Captured) -> list[dict[str, Any]]:
    """The tensor outputs in pytree order, named after their place in the output structure."""
    nodes = returned(captured.graph_module.graph)
    symbols = Symbols.of(captured.graph_module)
    paths = treespec.leaf_paths(treespec.encode(captured.out_spec), "output")
    described = []
    for path, output in zip(paths, captured.outputs, strict=True):
        name = output_name(path)
        if isinstance(output, int):
            value = nodes[output].meta["val"]
            described.append(
                {
                    "name": name,
                    "dtype": by_torch(value.dtype).name,
                    "shape": [_dim(size, symbols) for size in value.shape],
                }
            )
    return described


def output_name(path: str) -> str:
    """``logits`` of ``output.logits`` or ``output['logits']``; other paths stay whole."""
    named = re.fullmatch(r"output(?:\.(\w+)|\['([^']+)'\])", path)
    return path if named is None else named[1] or named[2]


def _dim(size: int | torch.SymInt, symbols: Symbols) -> Any:
    """A size as JSON; null where only the data tells it."""
    try:
        return dims.to_json(symbols.dim(size))
    except UnknownSymbolError:
        return None


def compute_precision(captured: Captured) -> str:
    """The least precise floating type among the model's parameters and inputs."""
    found = {"FLOAT"}
    values = [attribute(captured.graph_module, name) for name in captured.parameters]
    values += [n.meta["val"] for n in captured.graph_module.graph.nodes if n.op == "placeholder"]
    floats = {by_torch(v.dtype).name for v in values if v.is_floating_point()}
    return min(floats & set(_PRECISION) or found, key=_PRECISION.index)


def _tolerance(dtype: str, precision: str) -> dict[str, Any]:
    if dtype not in TOLERANCES:
        return {"equal": True}
    return dict(TOLERANCES[min(dtype, precision, key=_PRECISION.index)])


def _variant(variant: Variant, method: str) -> dict[str, Any]:
    engines: dict[str, dict[str, Any]] = {}
    for engine in variant.engines.values():
        item: dict[str, Any] = {"kind": engine.kind}
        if engine.path is not None:
            item["member"] = _engine_member(variant.target, engine)
            item["record"] = dict(engine.record or {})
        else:
            item["deferred"] = engine.deferred
        if engine.content is not None:
            item |= {"options": dict(engine.options or {}), "content": engine.content}
        engines[engine.segment] = item
    described = {
        "target": variant.target.describe(),
        "programs": {method: _program_member(method, variant.target)},
        "engines": engines,
    }
    if variant.tactics is not None:
        cache, lock = _cache_names(variant.target)
        key = variant.tactics.key.to_json()
        described["caches"] = {"timing": {"member": cache, "lock": lock, "key": key}}
    return described


def _cache_members(variant: Variant) -> list[Member]:
    """The timing cache, and what it holds as text."""
    if variant.tactics is None:
        return []
    cache, lock = _cache_names(variant.target)
    return [Member(cache, variant.tactics.blob), Member(lock, to_lock(variant.tactics))]


def _cache_names(target: Target) -> tuple[str, str]:
    return f"caches/{target.name}/timing.cache", f"caches/{target.name}/timing.lock.json"


def _requires(variants: Sequence[Variant]) -> list[str]:
    needs = {"format:1"}
    for variant in variants:
        for segment in variant.assembled.program.segments:
            if segment.graph is None:
                continue
            needs.update(needs_newer_torch(segment.graph))
            needs.update(f"module:{name}" for name in required_modules(segment.graph))
    return sorted(needs)


def _program_member(method: str, target: Target) -> str:
    return f"programs/{method}/{target.name}.json"


def _engine_member(target: Target, engine: BuiltEngine) -> str:
    assert engine.path is not None
    return f"engines/{target.name}/{engine.segment}{engine.path.suffix}"


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"
