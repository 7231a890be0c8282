# SPDX-License-Identifier: Apache-2.0
"""Small bundles made by hand, without the packager."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trtpack_runtime import aten, dims, program
from trtpack_runtime.bundle import Member, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment, StateSlot
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.recorder import Recorder


class Classifier(nn.Module):
    """Scales, then classifies; counts its calls."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, Any]:
        self.calls += 1
        logits = self.fc(x.clamp(0, 6)) * scale
        return {"logits": logits, "best": (logits.argmax(1), None), "batch": x.shape[0]}


BATCH = dims.dim("x", 0)


def network() -> Network:
    """``clip(x, 0, 6)``."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (BATCH, 4)))
    (y,) = recorder.add(
        "activation", {"input": x}, {"type": "CLIP", "alpha": 0.0, "beta": 6.0}, name="clipped"
    )
    return recorder.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])


def node(name: str, op: str, *args: Any) -> dict[str, Any]:
    """A node of a stored graph."""
    return {"name": name, "op": op, "args": list(args), "kwargs": {}}


def value(name: str) -> dict[str, str]:
    """A reference to a value of a stored graph."""
    return {"value": name}


def head(source: str) -> dict[str, Any]:
    """The stored graph of everything after the clipping."""
    weights = [{"constant": "fc.weight"}, {"constant": "fc.bias"}]
    nodes = [
        node("linear", "aten.linear.default", value(source), *weights),
        node("logits", "aten.mul.Tensor", value("linear"), value("scale")),
        node("best", "aten.argmax.default", value("logits"), 1),
        node("counted", "aten.add.Tensor", value("calls"), 1),
    ]
    inputs, outputs = [source, "scale", "calls"], ["logits", "best", "counted"]
    return {"schema": aten.SCHEMA, "inputs": inputs, "outputs": outputs, "nodes": nodes}


def whole() -> dict[str, Any]:
    """The stored graph of the model."""
    graph = head("clipped")
    clip = node("clipped", "aten.clamp.default", value("x"), 0, 6)
    return {**graph, "inputs": ["x", "scale", "calls"], "nodes": [clip, *graph["nodes"]]}


def one_segment() -> Program:
    """The model as one ATen segment."""
    return _program(
        Segment(
            "forward_0",
            "aten",
            {"x": "x", "scale": "scale", "calls": "calls_in"},
            {"logits": "logits", "best": "best", "counted": "calls_out"},
            graph=whole(),
        )
    )


def hybrid() -> Program:
    """The model as a network and an ATen segment."""
    member = f"networks/{network().digest()}.json"
    return _program(
        Segment("forward_0", "network", {"x": "x"}, {"clipped": "v"}, network=member),
        Segment(
            "forward_1",
            "aten",
            {"h": "v", "scale": "scale", "calls": "calls_in"},
            {"logits": "logits", "best": "best", "counted": "calls_out"},
            graph=head("h"),
        ),
    )


def write(
    path: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    package: tuple[Path, Mapping[str, Any]] | None = None,
    programs: Mapping[str, Program] | None = None,
    golden_error: float = 0.0,
    also: str | None = None,
    limits: Mapping[str, float] | None = None,
) -> Path:
    """A bundle of ``Classifier`` with the variants ``cpu`` and ``orin``.

    ``changes`` replaces top keys of the manifest, ``package`` is the compiled segment of ``cpu``
    with its record, ``programs`` replaces variants' programs, ``golden_error`` is added to the
    stored logits, ``also`` names a second method that does the same, ``limits`` are those of
    ``forward``.
    """
    model = Classifier().eval()
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir()
    write_safetensors(
        folder / "weights", [StoredTensor(k, v) for k, v in model.state_dict().items()]
    )
    x, scale = torch.linspace(-3, 9, 8).reshape(2, 4), torch.tensor([1.5])
    with torch.no_grad():
        answer = model(x, scale=scale)
    golden = {
        "input.0": x,
        "input.1": scale,
        "output.0": answer["logits"] + golden_error,
        "output.1": answer["best"][0],
        "state.calls": model.calls,
    }
    write_safetensors(folder / "golden", [StoredTensor(k, v) for k, v in golden.items()])
    all_programs = {"cpu": one_segment(), "orin": hybrid(), **(programs or {})}
    members = [
        *(
            Member(f"programs/forward/{name}.json", _json(program.to_json(p)))
            for name, p in all_programs.items()
        ),
        Member(f"networks/{network().digest()}.json", network().to_bytes()),
        Member("golden/forward-0.safetensors", folder / "golden"),
        Member("weights/0.safetensors", folder / "weights"),
    ]
    manifest = _manifest()
    if also is not None:
        manifest["methods"][also] = dict(manifest["methods"]["forward"])
        for name, variant in manifest["variants"].items():
            variant["programs"][also] = f"programs/{also}/{name}.json"
            again = program.to_json(replace(all_programs[name], method=also))
            members.insert(0, Member(variant["programs"][also], _json(again)))
    manifest["methods"]["forward"]["limits"] = dict(limits or {})
    if package is not None:
        members.append(Member("engines/cpu/forward_0.pt2", package[0]))
        manifest["variants"]["cpu"]["engines"] = {
            "forward_0": {
                "kind": "inductor",
                "member": "engines/cpu/forward_0.pt2",
                "record": dict(package[1]),
            }
        }
    write_bundle(path, Manifest.from_json(manifest | dict(changes or {})), members)
    return path


def _program(*segments: Segment) -> Program:
    return Program(
        "forward",
        ("x", "scale"),
        ("logits", "best", {"constant": None}, {"size": {"dim": ["x", 0]}}),
        segments,
        (StateSlot("calls", "calls_in", "calls_out"),),
    )


def _manifest() -> dict[str, Any]:
    batch = dims.to_json(BATCH)
    return {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "classifier",
        "requires": ["format:1"],
        "members": [],
        "methods": {
            "forward": {
                "inputs": [
                    {
                        "name": "x",
                        "dtype": "FLOAT",
                        "shape": [batch, 4],
                        "min": [1, 4],
                        "opt": [2, 4],
                        "max": [8, 4],
                    },
                    {"name": "scale", "dtype": "FLOAT", "shape": [1]},
                ],
                "outputs": [
                    {"name": "logits", "dtype": "FLOAT", "shape": [batch, 3]},
                    {"name": "best.0", "dtype": "INT64", "shape": [batch]},
                ],
                "in_tree": {
                    "call": {
                        "parameters": ["x", "scale"],
                        "args": ["*"],
                        "kwargs": [["scale", "*"]],
                    }
                },
                "out_tree": {
                    "dict": [["logits", "*"], ["best", {"tuple": ["*", "*"]}], ["batch", "*"]]
                },
                "golden": [
                    {
                        "member": "golden/forward-0.safetensors",
                        "inputs": ["input.0", "input.1"],
                        "outputs": ["output.0", "output.1"],
                        "states": ["state.calls"],
                    }
                ],
                "tolerance": {"logits": {"rel_l2": 1e-4}, "best.0": {"equal": True}},
            }
        },
        "state": [{"name": "calls", "dtype": "INT64", "shape": [], "initial": "calls"}],
        "weights": {
            "members": ["weights/0.safetensors"],
            "parameters": {"fc.weight": "fc.weight", "fc.bias": "fc.bias"},
            "buffers": {"calls": "calls"},
        },
        "variants": {
            "cpu": {
                "target": {"name": "cpu", "kind": "inductor", "sm": None},
                "programs": {"forward": "programs/forward/cpu.json"},
                "engines": {},
            },
            "orin": {
                "target": {"name": "orin", "kind": "tensorrt", "sm": "8.7"},
                "programs": {"forward": "programs/forward/orin.json"},
                "engines": {"forward_0": {"kind": "tensorrt", "deferred": "the device builds it"}},
            },
        },
        "metadata": {"labels": ["cat", "dog", "owl"]},
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode() + b"\n"
