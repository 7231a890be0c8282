# SPDX-License-Identifier: Apache-2.0
"""Small bundles whose engines the double of TensorRT computes; made without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tests.runtime.session.cuda_double import CudaDouble
from tests.runtime.session.trt_double import Net, TrtDouble
from trtpack_runtime import dims, program
from trtpack_runtime.bundle import Member, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.network import Layer, Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment, StateSlot
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.session import start

BATCH = dims.dim("x", 0)
FACTS: Mapping[str, Any] = {
    "os": "linux",
    "arch": "aarch64",
    "runtime": "0.1.0",
    "python": "3.10.12",
    "torch": None,
    "tensorrt": "10.3.0",
    "tensorrt_rtx": None,
    "gpus": [{"index": 0, "name": "Orin", "sm": "8.7", "memory_bytes": 1 << 32}],
    "driver": {"version": "540", "cuda": "12.6"},
    "jetson": None,
    "cpu": {"flags": []},
}
_RECORD = {"tensorrt": "10.3.0", "sm": "8.7", "device": "Orin", "os": "linux", "arch": "aarch64"}
_STORED = {"f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "u2": "BF16", "b1": "BOOL"}


@dataclass(frozen=True)
class Stored:
    """An array as ``write_safetensors`` takes it; uint16 are the bits of BF16."""

    name: str
    value: Any

    @property
    def dtype(self) -> str:
        return _STORED[self.value.dtype.str[1:]]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def buffer(self) -> Any:
        return memoryview(numpy.ascontiguousarray(self.value).reshape(-1).view("u1"))


@dataclass(frozen=True)
class Made:
    """A method to write: segments as ``(name, net, inputs, outputs)`` over program values."""

    inputs: Sequence[tuple[str, str, tuple[Any, ...], tuple[int, ...] | None]]
    """Name, type, shape, and the largest shape where one is open."""
    outputs: Sequence[tuple[str, str, tuple[Any, ...]]]
    segments: Sequence[tuple[str, str, Mapping[str, str], Mapping[str, str]]]
    values: Sequence[Any] = ()
    """The program's outputs; the manifest's names where not given."""
    states: Sequence[tuple[str, str, str]] = ()
    constants: Mapping[str, str] | None = None
    golden: Mapping[str, Any] | None = None
    aten: Mapping[str, Any] | None = None
    """The graph of a last segment that needs PyTorch."""
    follows: Sequence[str] = ()
    """The methods whose golden samples its own begins after."""


def write(
    path: Path,
    nets: Mapping[str, Net],
    methods: Mapping[str, Made],
    states: Mapping[str, Any] | None = None,
    stored: Mapping[str, Any] | None = None,
    variant: Mapping[str, Any] | None = None,
) -> Path:
    """A bundle with the variant ``orin``, of which ``variant`` says more; ``states`` are the slots'
    first values."""
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir()
    first = {f"state.{name}": value for name, value in (states or {}).items()}
    every = {**(stored or {}), **first}
    write_safetensors(folder / "weights", [Stored(k, v) for k, v in every.items()])
    members, programs, described, engines = [], {}, {}, {}
    for method, made in methods.items():
        steps = []
        for name, net, inputs, outputs in made.segments:
            content = _network(nets[net])
            member = f"networks/{content.digest()}.json"
            if member not in [m.name for m in members]:
                members.append(Member(member, content.to_bytes()))
            plan = f"engines/orin/{name}.plan"
            members.append(Member(plan, f"plan {net}".encode()))
            engines[name] = {
                "kind": "tensorrt",
                "member": plan,
                "record": {**_RECORD, "options": {}, "weights": "inside", "refit": False},
            }
            steps.append(Segment(name, "network", inputs, outputs, network=member))
        if made.aten is not None:
            names = made.aten["inputs"], made.aten["outputs"]
            own = [{name: name for name in half} for half in names]
            steps.append(Segment("head", "aten", own[0], own[1], graph=made.aten))
        values = made.values or [name for name, *_ in made.outputs]
        plan_of = Program(
            method,
            tuple(name for name, *_ in made.inputs),
            tuple(values),
            tuple(steps),
            tuple(StateSlot(*slot) for slot in made.states),
            dict(made.constants or {}),
        )
        programs[method] = f"programs/{method}/orin.json"
        members.append(Member(programs[method], _json(program.to_json(plan_of))))
        described[method] = _method(method, made)
        if made.golden is not None:
            write_safetensors(
                folder / f"golden-{method}", [Stored(k, v) for k, v in made.golden.items()]
            )
            members.append(Member(f"golden/{method}-0.safetensors", folder / f"golden-{method}"))
    members.append(Member("weights/0.safetensors", folder / "weights"))
    types = {"f4": "FLOAT", "i8": "INT64"}
    manifest = {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "toy",
        "requires": ["format:1"],
        "members": [],
        "methods": described,
        "state": [
            {
                "name": name,
                "dtype": types[value.dtype.str[1:]],
                "shape": list(value.shape),
                "initial": f"state.{name}",
            }
            for name, value in (states or {}).items()
        ],
        "weights": {"members": ["weights/0.safetensors"], "parameters": {}, "buffers": {}},
        "variants": {
            "orin": {
                "target": {"name": "orin", "kind": "tensorrt", "sm": "8.7"},
                "programs": programs,
                "engines": engines,
                **(variant or {}),
            }
        },
        "metadata": {},
    }
    write_bundle(path, Manifest.from_json(manifest), members)
    return path


def machine(
    monkeypatch: Any, nets: Mapping[str, Net], *, narrow: bool = False, **cuda: Any
) -> tuple[CudaDouble, TrtDouble]:
    """Makes this process's machine an Orin of doubles."""
    double = CudaDouble(**cuda)
    trt = TrtDouble(double, nets, narrow)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", double)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(start, "facts", lambda: dict(FACTS))
    return double, trt


def _network(net: Net) -> Network:
    tensors = {n: Tensor(n, dtype, _sized(n, s)) for n, (dtype, s) in net.outputs.items()}
    inputs = tuple(Tensor(n, dtype, s) for n, (dtype, s) in net.inputs.items())
    kind = "non_zero" if net.by_data() else "identity"
    operands = {"input": inputs[0].name}
    layer = Layer(kind, "computed", operands, {}, tuple(net.outputs))
    profiles = tuple(Profile(dict(shapes)) for shapes in net.profiles if shapes)
    return Network(inputs, tuple(net.outputs), {}, (layer,), tensors, profiles)


def _sized(name: str, shape: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dims.dim(name, i) if size is None else size for i, size in enumerate(shape))


def _method(name: str, made: Made) -> dict[str, Any]:
    inputs = []
    for tensor, dtype, shape, high in made.inputs:
        spec: dict[str, Any] = {
            "name": tensor,
            "dtype": dtype,
            "shape": [None if size is None else dims.to_json(size) for size in shape],
        }
        if high is not None:
            low = [size if isinstance(size, int) else 1 for size in shape]
            spec |= {"min": low, "opt": list(high), "max": list(high)}
        inputs.append(spec)
    golden = made.golden or {}
    sample = {
        "member": f"golden/{name}-0.safetensors",
        "inputs": [k for k in golden if k.startswith("input.")],
        "outputs": [k for k in golden if k.startswith("output.")],
        "states": [k for k in golden if k.startswith("state.")],
        "follows": list(made.follows),
    }
    return {
        "inputs": inputs,
        "outputs": [
            {
                "name": tensor,
                "dtype": dtype,
                "shape": [None if size is None else dims.to_json(size) for size in shape],
            }
            for tensor, dtype, shape in made.outputs
        ],
        "in_tree": {
            "call": {
                "parameters": [i[0] for i in made.inputs],
                "args": ["*"] * len(inputs),
                "kwargs": [],
            }
        },
        "out_tree": {"tuple": ["*"] * len(made.outputs)},
        "golden": [sample] if golden else [],
        "tolerance": {},
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode() + b"\n"
