# SPDX-License-Identifier: Apache-2.0
"""Bundles of small networks in a row: ``y = 2 * (x0 + x1 + ...)`` for each, without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime import dims, program
from trtpack_runtime.bundle import Member, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment, StateSlot
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.recorder import Recorder

SHAPE = (dims.dim("x0", 0), 4)
RANGE = ((1, 4), (2, 4), (8, 4))


def network(inputs: int) -> Network:
    """The doubled sum of so many inputs."""
    recorder = Recorder()
    taken = [recorder.input(Tensor(f"x{i}", "FLOAT", SHAPE)) for i in range(inputs)]
    total = taken[0]
    for i, more in enumerate([*taken[1:], None]):
        other = total if more is None else more
        (total,) = recorder.add(
            "elementwise", {"input1": total, "input2": other}, {"op": "SUM"}, name=f"sum{i}"
        )
    profile = Profile({f"x{i}": RANGE for i in range(inputs)})
    return recorder.finish([total.name], [profile])


def doubled(*inputs: torch.Tensor, times: int = 1) -> torch.Tensor:
    """What such a bundle answers."""
    total = torch.stack(inputs).sum(0) if len(inputs) > 1 else inputs[0]
    return total * 2**times


def write(
    path: Path,
    inputs: int = 1,
    segments: int = 1,
    *,
    state: bool = False,
    tree: Any = None,
    methods: tuple[str, ...] = ("forward",),
) -> Path:
    """A bundle with the variant ``cpu``.

    The first network takes the inputs, each further one what the one before answers. With ``state``
    the methods are given the sum so far as another input and keep their answer there. ``tree`` is
    the structure of the answer.
    """
    taken = inputs + state
    first, rest = network(taken), network(1)
    programs = {name: _program(name, first, rest, inputs, segments, state) for name in methods}
    members = [
        *(
            Member(f"programs/{name}/cpu.json", json.dumps(program.to_json(p)).encode() + b"\n")
            for name, p in programs.items()
        ),
        *(
            Member(f"networks/{n.digest()}.json", n.to_bytes())
            for n in {n.digest(): n for n in (first, rest)[: min(segments, 2)]}.values()
        ),
    ]
    stored: Mapping[str, torch.Tensor] = {"total": torch.zeros(2, 4)} if state else {}
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir()
    write_safetensors(folder / "weights", [StoredTensor(k, v) for k, v in stored.items()])
    members.append(Member("weights/0.safetensors", folder / "weights"))
    write_bundle(path, Manifest.from_json(_manifest(inputs, state, tree, methods)), members)
    return path


def _program(
    method: str, first: Network, rest: Network, inputs: int, segments: int, state: bool
) -> Program:
    names = [f"x{i}" for i in range(inputs)] + (["before"] if state else [])
    steps = [
        Segment(
            f"{method}_0",
            "network",
            {f"x{i}": name for i, name in enumerate(names)},
            {first.outputs[0]: "v0"},
            network=f"networks/{first.digest()}.json",
        )
    ]
    for i in range(1, segments):
        outputs = {rest.outputs[0]: f"v{i}"}
        member = f"networks/{rest.digest()}.json"
        steps.append(
            Segment(f"{method}_{i}", "network", {"x0": f"v{i - 1}"}, outputs, network=member)
        )
    last = f"v{segments - 1}"
    slots = (StateSlot("total", "before", last),) if state else ()
    return Program(method, tuple(names[:inputs]), (last,), tuple(steps), slots)


def _manifest(inputs: int, state: bool, tree: Any, methods: tuple[str, ...]) -> dict[str, Any]:
    shape = [2, 4] if state else [dims.to_json(SHAPE[0]), 4]
    ranges = {} if state else dict(zip(("min", "opt", "max"), map(list, RANGE), strict=True))
    names = [f"x{i}" for i in range(inputs)]
    method = {
        "inputs": [{"name": n, "dtype": "FLOAT", "shape": shape, **ranges} for n in names],
        "outputs": [{"name": "y", "dtype": "FLOAT", "shape": shape}],
        "in_tree": {"call": {"parameters": names, "args": ["*"] * inputs, "kwargs": []}},
        "out_tree": tree or "*",
        "golden": [],
        "tolerance": {},
    }
    slot = {"name": "total", "dtype": "FLOAT", "shape": [2, 4], "initial": "total"}
    return {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "chain",
        "requires": ["format:1"],
        "members": [],
        "methods": dict.fromkeys(methods, method),
        "state": [slot] if state else [],
        "weights": {"members": ["weights/0.safetensors"], "parameters": {}, "buffers": {}},
        "variants": {
            "cpu": {
                "target": {"name": "cpu", "kind": "inductor", "sm": None},
                "programs": {name: f"programs/{name}/cpu.json" for name in methods},
                "engines": {},
            }
        },
    }
