# SPDX-License-Identifier: Apache-2.0
"""A bundle of two segments whose answers follow from four weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime import aten, dims, program
from trtpack_runtime.bundle import Member, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.recorder import Recorder

BATCH = dims.dim("x", 0)
X = torch.linspace(-3, 9, 8).reshape(2, 4)
PLAN = "engines/h200/x.plan"


def values(seed: int = 0) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    shapes = {"fc.weight": (3, 4), "fc.bias": (3,), "head.weight": (5, 3), "head.scale": (1,)}
    return {name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


def answer(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    hidden = torch.relu(X @ state["fc.weight"].T + state["fc.bias"])
    return (hidden @ state["head.weight"].T) * state["head.scale"]


def constant(name: str) -> dict[str, str]:
    return {"constant": name}


def transposed(name: str) -> dict[str, Any]:
    return {"op": "aten.permute.default", "args": [constant(name), [1, 0]]}


def network(table: str = "table") -> Network:
    """``relu(x @ fc.weight.T + fc.bias) + a table of zeros``."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (BATCH, 4)))
    w = recorder.constant("FLOAT", (4, 3), "fc.weight|t", transposed("fc.weight"))
    b = recorder.constant("FLOAT", (3,), "fc.bias")
    view = {"op": "aten.view.default", "args": [constant("fc.bias"), [1, 3]]}
    row = recorder.constant("FLOAT", (1, 3), "fc.bias|1x3", view)
    zeros = recorder.constant("FLOAT", (1, 3), "table")
    plain = {"op0": "NONE", "op1": "NONE"}
    (y,) = recorder.add("matrix_multiply", {"input0": x, "input1": w}, plain, name="y")
    (y,) = recorder.add("elementwise", {"input1": y, "input2": row}, {"op": "SUM"}, name="sum")
    (y,) = recorder.add("elementwise", {"input1": y, "input2": zeros}, {"op": "SUM"}, name="more")
    (y,) = recorder.add("activation", {"input": y}, {"type": "RELU"}, name="h")
    made = recorder.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])
    assert b.name == "fc.bias"
    # a constant is a view of what is stored
    stored = {"fc.bias|1x3": "fc.bias", "table": table}
    kept = {n: replace(c, data=stored.get(n, c.data)) for n, c in made.constants.items()}
    return replace(made, constants=kept)


def graph() -> dict[str, Any]:
    """``(h @ head.weight.T) * head.scale``, the product with the transposed stored."""
    nodes = [
        {
            "name": "product",
            "op": "aten.mm.default",
            "args": [{"value": "h"}, constant("head.weight|t")],
            "kwargs": {},
        },
        {
            "name": "y",
            "op": "aten.mul.Tensor",
            "args": [{"value": "product"}, constant("head.scale")],
            "kwargs": {},
        },
    ]
    return {"schema": aten.SCHEMA, "inputs": ["h"], "outputs": ["y"], "nodes": nodes}


def write(
    path: Path,
    *,
    record: Mapping[str, Any] | None = None,
    recipes: bool = True,
    parameters: Mapping[str, str] | None = None,
    table: str = "table",
) -> Path:
    """A bundle of ``answer``; ``record`` is that of its TensorRT engine, None where it has none."""
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir(exist_ok=True)
    state = values()
    stored = state | {
        "fc.weight|t": state["fc.weight"].T.contiguous(),
        "head.weight|t": state["head.weight"].T.contiguous(),
        "table": torch.zeros(3),
    }
    write_safetensors(folder / "weights", [StoredTensor(k, v) for k, v in stored.items()])
    golden = {"input.0": X, "output.0": answer(state)}
    write_safetensors(folder / "golden", [StoredTensor(k, v) for k, v in golden.items()])
    made = network(table)
    member = f"networks/{made.digest()}.json"
    steps = Program(
        "forward",
        ("x",),
        ("y",),
        (
            Segment("forward_0", "network", {"x": "x"}, {"h": "h"}, network=member),
            Segment("forward_1", "aten", {"h": "h"}, {"y": "y"}, graph=graph()),
        ),
        recipes={"head.weight|t": transposed("head.weight")} if recipes else None,
    )
    engine: dict[str, Any] = {"kind": "tensorrt", "deferred": "left to the device"}
    if record is not None:
        engine = {"kind": "tensorrt", "member": PLAN, "record": dict(record)}
    engine["content"] = "0" * 64
    shape = [dims.to_json(BATCH), 4]
    spec = {"name": "x", "dtype": "FLOAT", "shape": shape, "min": [1, 4], "opt": [2, 4]}
    programs = {"forward": "programs/forward/all.json"}
    manifest = {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "mixed",
        "requires": ["format:1"],
        "members": [],
        "methods": {
            "forward": {
                "inputs": [{**spec, "max": [8, 4]}],
                "outputs": [{"name": "y", "dtype": "FLOAT", "shape": [shape[0], 5]}],
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
            "parameters": dict(parameters or {name: name for name in state}),
            "buffers": {},
        },
        "variants": {
            "cpu": {
                "target": {"name": "cpu", "kind": "inductor", "sm": None},
                "programs": programs,
                "engines": {
                    "forward_1": {
                        "kind": "inductor",
                        "member": "engines/cpu/forward_1.pt2",
                        "record": {"torch": "1.0", "os": "linux", "arch": "none"},
                    }
                },
            },
            "h200": {
                "target": {"name": "h200", "kind": "tensorrt", "sm": "9.0"},
                "programs": programs,
                "engines": {"forward_0": engine},
            },
        },
    }
    content = json.dumps(program.to_json(steps), sort_keys=True).encode()
    members = [
        Member("programs/forward/all.json", content),
        Member(member, made.to_bytes()),
        Member("golden/forward-0.safetensors", folder / "golden"),
        Member("weights/0.safetensors", folder / "weights"),
        Member("engines/cpu/forward_1.pt2", b"machine code"),
    ]
    members += [Member(PLAN, b"plan" * 500)] if record is not None else []
    write_bundle(path, Manifest.from_json(manifest), members)
    return path
