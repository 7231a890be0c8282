# SPDX-License-Identifier: Apache-2.0
"""A bundle that leaves its engines to the device, and machines that could build them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime import device, dims, program
from trtpack_runtime.bundle import Member, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.recorder import Recorder

BATCH = dims.dim("x", 0)
SEGMENTS = ("forward_0", "forward_1")
KINDS = {"ada": ("tensorrt-rtx", "8.9", None), "h200": ("tensorrt", "9.0", "10.3")}


def network(weight: str) -> Network:
    """``relu(x @ weight)``."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (BATCH, 4)))
    w = recorder.constant("FLOAT", (4, 4), weight)
    plain = {"op0": "NONE", "op1": "NONE"}
    (y,) = recorder.add("matrix_multiply", {"input0": x, "input1": w}, plain, name="product")
    (z,) = recorder.add("activation", {"input": y}, {"type": "RELU"}, name="relu")
    return recorder.finish([z.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])


def weights() -> dict[str, torch.Tensor]:
    """Two matrices, and one that no network reads."""
    torch.manual_seed(0)
    return {name: torch.randn(4, 4) for name in ("w0", "w1", "unused")}


def write(
    path: Path,
    *,
    variants: Sequence[str] = ("ada",),
    scale: float = 1.0,
    engines: Mapping[str, Any] | None = None,
    extra: tuple[Member, ...] = (),
    caches: Mapping[str, Any] | None = None,
) -> Path:
    """The bundle. ``engines`` changes both engines of every variant, ``scale`` the weights."""
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir(exist_ok=True)
    values = {name: value * scale for name, value in weights().items()}
    write_safetensors(folder / "weights", [StoredTensor(k, v) for k, v in values.items()])
    x = torch.linspace(-3, 9, 8).reshape(2, 4)
    y = torch.relu(torch.relu(x @ values["w0"]) @ values["w1"])
    golden = {"input.0": x, "output.0": y}
    write_safetensors(folder / "golden", [StoredTensor(k, v) for k, v in golden.items()])
    members = [f"networks/{network(w).digest()}.json" for w in ("w0", "w1")]
    steps = Program(
        "forward",
        ("x",),
        ("v1",),
        (
            Segment(SEGMENTS[0], "network", {"x": "x"}, {"relu": "v0"}, network=members[0]),
            Segment(SEGMENTS[1], "network", {"x": "v0"}, {"relu": "v1"}, network=members[1]),
        ),
    )
    found = {"cpu": _variant("reference", None, None, None, None)} | {
        name: _variant(*KINDS[name], engines or {}, caches) for name in variants
    }
    content = json.dumps(program.to_json(steps), sort_keys=True).encode()
    write_bundle(
        path,
        Manifest.from_json(_manifest(found)),
        [
            Member("programs/forward/all.json", content),
            *(Member(m, network(w).to_bytes()) for m, w in zip(members, ("w0", "w1"), strict=True)),
            Member("golden/forward-0.safetensors", folder / "golden"),
            Member("weights/0.safetensors", folder / "weights"),
            *extra,
        ],
    )
    return path


def ada(**changes: Any) -> dict[str, Any]:
    """The facts of this machine as if it had a GPU that TensorRT-RTX builds for."""
    gpu = {"name": "NVIDIA L4", "sm": "8.9", "memory_bytes": 24 << 30, "multiprocessors": 58}
    return device.facts() | {"gpus": [{**gpu, "integrated": False}], "problems": []} | changes


def h200(**changes: Any) -> dict[str, Any]:
    """The facts of a machine with a large GPU and TensorRT."""
    gpu = {"name": "NVIDIA H200", "sm": "9.0", "memory_bytes": 141 << 30, "multiprocessors": 132}
    return (
        device.facts()
        | {
            "gpus": [{**gpu, "integrated": False}],
            "tensorrt": "10.3.0.30",
            "driver": {"version": "550.1", "cuda": "12.4"},
            "problems": [],
        }
        | changes
    )


def _variant(
    kind: str,
    sm: str | None,
    tensorrt: str | None,
    engines: Mapping[str, Any] | None,
    caches: Mapping[str, Any] | None,
) -> dict[str, Any]:
    deferred = {"kind": kind, "deferred": "left to the device"}
    refs = {} if engines is None else {name: {**deferred, **engines} for name in SEGMENTS}
    return {
        "target": {"name": kind, "kind": kind, "sm": sm, "tensorrt": tensorrt},
        "programs": {"forward": "programs/forward/all.json"},
        "engines": refs,
        **({"caches": caches} if caches else {}),
    }


def _manifest(variants: Mapping[str, Any]) -> dict[str, Any]:
    shape = [dims.to_json(BATCH), 4]
    spec = {"name": "x", "dtype": "FLOAT", "shape": shape}
    return {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "layers",
        "requires": ["format:1"],
        "members": [],
        "methods": {
            "forward": {
                "inputs": [{**spec, "min": [1, 4], "opt": [2, 4], "max": [8, 4]}],
                "outputs": [{**spec, "name": "y"}],
                "in_tree": {"call": {"parameters": ["x"], "args": ["*"], "kwargs": []}},
                "out_tree": "*",
                "golden": [
                    {
                        "member": "golden/forward-0.safetensors",
                        "inputs": ["input.0"],
                        "outputs": ["output.0"],
                    }
                ],
                "tolerance": {"y": {"rel_l2": 1e-4}},
            }
        },
        "state": [],
        "weights": {
            "members": ["weights/0.safetensors"],
            "parameters": {name: name for name in weights()},
            "buffers": {},
        },
        "variants": dict(variants),
    }
