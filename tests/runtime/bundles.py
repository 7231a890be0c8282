# SPDX-License-Identifier: Apache-2.0
"""A small bundle for tests, and archives that are wrong on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtpack_runtime.archive_writer import Member
from trtpack_runtime.bundle import write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.safetensors import Encoded, TensorView
from trtpack_runtime.tar_layout import END, MANIFEST, Entry, fill, headers

WEIGHTS = (
    TensorView("fc.weight", "F32", (7, 3), memoryview(bytes(range(84)))),
    TensorView("fc.steps", "I64", (), memoryview(b"\x05" + bytes(7))),
    TensorView("table|packed", "BF16", (300, 64), memoryview(bytes(range(256)) * 150)),
)
PROGRAM = (
    b'{"schema":"trtpack.program/1","method":"forward","inputs":["x"],"outputs":["y"],'
    b'"state":[],"segments":[{"name":"forward_0","kind":"aten","inputs":{"x":"x"},'
    b'"outputs":{"y":"y"},"graph":{"nodes":[{"op":"aten.relu.default"}]}}]}\n'
)
CODE = b"machine code" * 6000


def manifest_json(**changes: Any) -> dict[str, Any]:
    """A manifest as JSON without its members."""
    value: dict[str, Any] = {
        "schema": "trtpack.bundle/1",
        "producer": "trtpack 0.1.0",
        "name": "tiny",
        "requires": ["format:1"],
        "members": [],
        "methods": {
            "forward": {
                "inputs": [
                    {
                        "name": "x",
                        "dtype": "FLOAT",
                        "shape": [{"dim": ["x", 0]}, 3],
                        "min": [1, 3],
                        "opt": [4, 3],
                        "max": [8, 3],
                    }
                ],
                "outputs": [
                    {"name": "y", "dtype": "FLOAT", "shape": [{"dim": ["x", 0]}, 7]},
                    {"name": "found", "dtype": "INT64", "shape": [None]},
                ],
                "in_tree": {"call": {"parameters": ["x"], "args": ["*"], "kwargs": []}},
                "out_tree": {"tuple": ["*", "*"]},
                "golden": [
                    {
                        "member": "golden/forward-0.safetensors",
                        "inputs": ["input.0"],
                        "outputs": ["output.0", "output.1"],
                        "states": [],
                    }
                ],
                "tolerance": {"y": {"rel_l2": 0.001, "cosine": 0.999}, "found": {"equal": True}},
            }
        },
        "state": [{"name": "steps", "dtype": "INT64", "shape": [], "initial": "fc.steps"}],
        "weights": {
            "members": ["weights/0.safetensors"],
            "parameters": {"fc.weight": "fc.weight"},
            "buffers": {},
        },
        "variants": {
            "cpu": {
                "target": {"name": "cpu", "kind": "inductor", "arch": "x86_64", "sm": None},
                "programs": {"forward": "programs/forward/cpu.json"},
                "engines": {
                    "forward_0": {
                        "kind": "inductor",
                        "member": "engines/cpu/forward_0.pt2",
                        "record": {"torch": "2.6.0"},
                    }
                },
            },
            "orin": {
                "target": {"name": "orin", "kind": "tensorrt", "sm": "8.7"},
                "programs": {"forward": "programs/forward/cpu.json"},
                "engines": {"forward_0": {"kind": "tensorrt", "deferred": "no such GPU here"}},
            },
        },
        "report": {"operators": {"aten.relu.default": 1}},
        "metadata": {"labels": ["cat", "dog"]},
    }
    return {**value, **changes}


def members() -> list[Member]:
    """The members that ``manifest_json`` refers to, small and large ones."""
    golden = TensorView("input.0", "F32", (1, 3), memoryview(bytes(12)))
    return [
        Member("programs/forward/cpu.json", PROGRAM),
        Member("golden/forward-0.safetensors", Encoded([golden])),
        Member("weights/0.safetensors", Encoded(WEIGHTS)),
        Member("engines/cpu/forward_0.pt2", CODE),
    ]


def write_tiny(path: Path, **changes: Any) -> Path:
    """Writes the small bundle."""
    write_bundle(path, Manifest.from_json(manifest_json(**changes)), members())
    return path


def entry(name: str, content: bytes) -> Entry:
    """What a manifest says of such a member."""
    return Entry(name, len(content), hashlib.sha256(content).hexdigest())


def archive_bytes(manifest: bytes, contents: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive with sound headers whose manifest need not speak of these members."""
    data = headers(entry(MANIFEST, manifest), 0) + manifest + fill(len(manifest))
    for name, content in contents:
        data += headers(entry(name, content), len(data)) + content + fill(len(content))
    return data + END
