# SPDX-License-Identifier: Apache-2.0
"""Writes the bundle: manifest, programs, networks, golden samples, weights, engines."""

from __future__ import annotations

import inspect
import json
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

from .accuracy.noise import PRECISION_ORDER, Noise, tolerances
from .aten_encoding import needs_newer_torch
from .capture import Captured, attribute, returned
from .convert import signature
from .converters.symbols import Symbols, UnknownSymbolError
from .custom_operators import required_modules
from .engines import BuiltEngine
from .golden import GoldenSample
from .lowering import NO_PLAN
from .output_names import output_names
from .precision.plan import PrecisionPlan
from .program import Assembled
from .sources import Source
from .target import Target
from .weights import StoredTensor, WeightStore

PRECISION_MEMBER = "precision/{}.json"
WEIGHTS_MEMBER = "weights/0.safetensors"
NO_LIMITS = Limits()


@dataclass(frozen=True)
class Model:
    """What a bundle holds of one method of the model, whatever it is built for."""

    source: Source
    captured: Captured
    golden: tuple[GoldenSample, ...]
    limits: Limits = NO_LIMITS
    borders: tuple[Mapping[str, Border], ...] = ()
    noise: Noise | None = None
    plan: PrecisionPlan = NO_PLAN

    @property
    def method(self) -> str:
        """Its name."""
        return self.captured.method


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
    """What one target contributes to the bundle; ``programs`` by method. ``tactics_chosen`` says
    that the user named its tactics, with ``--tactics`` or ``--locked``."""

    target: Target
    programs: Mapping[str, Assembled]
    engines: Mapping[str, BuiltEngine]
    tactics: Tactics | None = None
    cuda_graphs: bool = False
    tactics_chosen: bool = False


def write(
    path: Path,
    models: Sequence[Model],
    stored: Stored,
    variants: Sequence[Variant],
    metadata: Mapping[str, Any],
    report: Mapping[str, Any],
    runtime: Sequence[Member] = (),
) -> Path:
    """Writes the bundle to ``path`` and answers it; ``models`` are the methods of one model,
    ``runtime`` are wheels for the device.

    Raises:
        ConfigError: the disk refused; nothing is left behind.
    """
    source = models[0].source
    samples = []
    for model in models:
        for i, sample in enumerate(model.golden):
            file = path.parent / f"golden-{model.method}-{i}.safetensors"
            write_safetensors(file, sample.tensors())
            samples.append(Member(f"golden/{model.method}-{i}.safetensors", file))
    networks = {
        f"networks/{network.digest()}.json": network.to_bytes()
        for variant in variants
        for assembled in variant.programs.values()
        for network in assembled.networks.values()
    }
    programs = [
        Member(
            _program_member(model.method, v.target),
            _json(program.to_json(v.programs[model.method].program)),
        )
        for model in models
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
            "requires": _requires(models, variants),
            "members": [],
            "methods": {model.method: _method(model) for model in models},
            "state": [
                {
                    "name": slot,
                    "dtype": by_torch(value.dtype).name,
                    "shape": list(value.shape),
                    "initial": stored.store.put(slot, value),
                }
                for slot, value in _state(models).items()
            ],
            "weights": {"members": [WEIGHTS_MEMBER], **stored.names},
            "variants": {v.target.name: _variant(v) for v in variants},
            "report": report,
            "metadata": {**source.metadata, **metadata},
        }
    )
    members = [
        *programs,
        *(Member(PRECISION_MEMBER.format(m.method), _json(m.plan.to_json())) for m in models),
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
                "follows": list(sample.follows),
            }
            for i, sample in enumerate(golden)
        ],
        "tolerance": tolerances(
            [*((o["name"], o["dtype"]) for o in outputs), *_judged_state(model)],
            compute_precision(captured),
            model.noise,
        ),
        "borders": borders_json(model.borders),
        "limits": asdict(model.limits),
    }


def _state(models: Sequence[Model]) -> dict[str, torch.Tensor]:
    """Every slot that any of the methods has, with its first value."""
    return {
        state.slot: attribute(model.captured.graph_module, state.slot)
        for model in models
        for state in model.captured.state
    }


def _judged_state(model: Model) -> list[tuple[str, str]]:
    """State that the plan's types change, with its types; other state is judged by these alone."""
    if model.noise is None or "precision" not in model.noise.figures:
        return []
    slots = (state.slot for state in model.captured.state)
    found = ((slot, attribute(model.captured.graph_module, slot)) for slot in slots)
    return [(slot, by_torch(value.dtype).name) for slot, value in found]


def _outputs(captured: Captured) -> list[dict[str, Any]]:
    """The tensor outputs in pytree order, named after their place in the output structure."""
    nodes = returned(captured.graph_module.graph)
    symbols = Symbols.of(captured.graph_module)
    described = []
    for name, place in output_names(captured).items():
        value = nodes[place].meta["val"]
        described.append(
            {
                "name": name,
                "dtype": by_torch(value.dtype).name,
                "shape": [_dim(size, symbols) for size in value.shape],
            }
        )
    return described


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
    return min(floats & set(PRECISION_ORDER) or found, key=PRECISION_ORDER.index)


def _variant(variant: Variant) -> dict[str, Any]:
    engines: dict[str, dict[str, Any]] = {}
    for engine in variant.engines.values():
        if engine.failed is not None:
            continue  # PyTorch runs the segment
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
        "programs": {name: _program_member(name, variant.target) for name in variant.programs},
        "engines": engines,
    }
    if variant.cuda_graphs:
        described["cuda_graphs"] = True
    if variant.tactics is not None:
        cache, lock = _cache_names(variant.target)
        key = variant.tactics.key.to_json()
        timing: dict[str, Any] = {"member": cache, "lock": lock, "key": key}
        if variant.tactics_chosen:
            timing["chosen"] = True
        described["caches"] = {"timing": timing}
    return described


def _cache_members(variant: Variant) -> list[Member]:
    """The timing cache, and what it holds as text."""
    if variant.tactics is None:
        return []
    cache, lock = _cache_names(variant.target)
    return [Member(cache, variant.tactics.blob), Member(lock, to_lock(variant.tactics))]


def _cache_names(target: Target) -> tuple[str, str]:
    return f"caches/{target.name}/timing.cache", f"caches/{target.name}/timing.lock.json"


def _requires(models: Sequence[Model], variants: Sequence[Variant]) -> list[str]:
    needs = {"format:1"}
    if any(sample.follows for model in models for sample in model.golden):
        needs.add("golden:follows")
    for variant in variants:
        segments = [s for one in variant.programs.values() for s in one.program.segments]
        for segment in segments:
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
