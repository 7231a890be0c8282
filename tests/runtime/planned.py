# SPDX-License-Identifier: Apache-2.0
"""Bundles with TensorRT engines, and a network deep enough to look into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.runtime import handmade
from trtpack_runtime import program as programs
from trtpack_runtime.bundle import Member, open_bundle, write_bundle
from trtpack_runtime.manifest import EngineRef, Manifest
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.recorder import Recorder

RECORD: Mapping[str, Any] = {
    "tensorrt": "10.3.0",
    "sm": "8.7",
    "device": "Orin",
    "os": "linux",
    "arch": "aarch64",
    "options": {},
    "weights": "inside",
    "refit": False,
}


def with_plan(path: Path, plan: bytes = b"plan\0", kind: str = "tensorrt", **record: Any) -> Path:
    """The bundle with this as the engine of ``forward_0`` of its variant ``orin``."""
    bundle = open_bundle(path)
    member = "engines/orin/forward_0.plan"
    variants = dict(bundle.manifest.variants)
    ref = EngineRef(kind, member, {**RECORD, **record})
    variants["orin"] = replace(
        variants["orin"],
        target={**variants["orin"].target, "kind": kind},
        engines={"forward_0": ref},
    )
    manifest = replace(bundle.manifest, variants=variants)
    rewrite(bundle, path, manifest=manifest, add=[Member(member, plan)])
    return path


def deep(dtype: str = "HALF", width: int = 8) -> tuple[Network, dict[str, torch.Tensor]]:
    """Six products and activations with a shortcut, and its stored tensors.

    ``blocks.3`` scales far beyond what HALF holds and ``blocks.4`` scales back.
    """
    recorder, generator = Recorder(), torch.Generator().manual_seed(0)
    wanted = {"HALF": torch.float16, "FLOAT": torch.float32}[dtype]
    stored: dict[str, torch.Tensor] = {}
    x = recorder.input(Tensor("x", dtype, (handmade.BATCH, width)))
    first = x
    for i in range(6):
        name = f"blocks.{i}.weight"
        scale = {3: 4000.0, 4: 1 / 4000.0}.get(i, 1.0)
        value = torch.randn(width, width, generator=generator) * scale / width**0.5
        stored[name] = value.to(wanted)
        weight = recorder.constant(dtype, (width, width), name)
        (x,) = recorder.add(
            "matrix_multiply",
            {"input0": x, "input1": weight},
            {"op0": "NONE", "op1": "NONE"},
            name=f"blocks.{i}/linear",
            origin=f"blocks.{i} (model.py:{10 + i})",
        )
        if i == 1:
            (x,) = recorder.add(
                "elementwise",
                {"input1": x, "input2": first},
                {"op": "SUM"},
                name="add",
                origin="model.py:30",
            )
        (x,) = recorder.add(
            "activation",
            {"input": x},
            {"type": "RELU"},
            name=f"blocks.{i}.act/relu",
            origin=f"blocks.{i}.act (act.py:3)",
        )
    profile = Profile({"x": ((1, width), (4, width), (8, width))})
    return recorder.finish([x.name], [profile]), stored


def write_deep(
    path: Path,
    kind: str = "tensorrt",
    plan: Path | None = None,
    target_sm: str = "8.9",
    **record: Any,
) -> Path:
    """A bundle whose model is ``deep()``, for the variants ``here`` and ``other``; ``plan`` is the
    engine of ``here``, the others are deferred."""
    network, stored = deep()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).half() * 100
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir()
    write_safetensors(folder / "weights", [StoredTensor(k, v) for k, v in stored.items()])
    golden = {"input.0": x, "output.0": torch.zeros(4, 8, dtype=torch.float16)}
    write_safetensors(folder / "golden", [StoredTensor(k, v) for k, v in golden.items()])
    member = f"networks/{network.digest()}.json"
    (output,) = network.outputs
    segment = Segment("forward_0", "network", {"x": "x"}, {output: "y"}, network=member)
    program = Program("forward", ("x",), ("y",), (segment,))
    engine: dict[str, Any] = {"kind": kind, "deferred": "the device builds it"}
    built = {"kind": kind, "member": "engines/here/forward_0.plan", "record": record}
    batch = {"dim": ["x", 0]}
    ranges = {"min": [1, 8], "opt": [4, 8], "max": [8, 8]}
    manifest = {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "deep model",
        "requires": ["format:1"],
        "members": [],
        "methods": {
            "forward": {
                "inputs": [{"name": "x", "dtype": "HALF", "shape": [batch, 8], **ranges}],
                "outputs": [{"name": "y", "dtype": "HALF", "shape": [batch, 8]}],
                "in_tree": {"call": {"parameters": ["x"], "args": ["*"], "kwargs": []}},
                "out_tree": "*",
                "golden": [
                    {
                        "member": "golden/forward-0.safetensors",
                        "inputs": ["input.0"],
                        "outputs": ["output.0"],
                    }
                ],
            }
        },
        "state": [],
        "weights": {"members": ["weights/0.safetensors"], "parameters": {}, "buffers": {}},
        "variants": {
            name: {
                "target": {"name": name, "kind": kind, "sm": target_sm},
                "programs": {"forward": "programs/forward/all.json"},
                "engines": {"forward_0": built if plan and name == "here" else engine},
            }
            for name in ("here", "other")
        },
    }
    members = [
        Member("programs/forward/all.json", json.dumps(programs.to_json(program)).encode()),
        Member(member, network.to_bytes()),
        Member("golden/forward-0.safetensors", folder / "golden"),
        Member("weights/0.safetensors", folder / "weights"),
        *([Member("engines/here/forward_0.plan", plan)] if plan else []),
    ]
    write_bundle(path, Manifest.from_json(manifest), members)
    return path
