# SPDX-License-Identifier: Apache-2.0
"""Small bundles with variants for chosen targets; their engines are no engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.runtime.bundles import CODE, manifest_json
from trtpack.target import find_target
from trtpack_runtime.archive_writer import Member
from trtpack_runtime.bundle import write_bundle
from trtpack_runtime.manifest import Manifest

_SEGMENT = (
    b'{"name":"forward_0","kind":"aten","inputs":{"x":"x"},"outputs":{"y":"y"},'
    b'"graph":{"nodes":[{"op":"aten.relu.default"}]}}'
)
_PROGRAM = (
    b'{"schema":"trtpack.program/1","method":"forward","inputs":["x"],"outputs":["y"],'
    b'"state":[],"segments":[%s]}\n'
)


def write(
    path: Path,
    *targets: str,
    torch_segment: bool = False,
    requires: Sequence[str] = ("format:1",),
    name: str = "tiny",
    torch: str = "2.13.0+cpu",
    told: Mapping[str, object] | None = None,
) -> Path:
    """A bundle for ``targets``; each has an engine for ``forward_0``, and with ``torch_segment``
    PyTorch runs ``forward_1``. ``told`` is said of each target besides."""
    segments = [_SEGMENT, *([_SEGMENT.replace(b"_0", b"_1")] if torch_segment else [])]
    program = _PROGRAM % b",".join(segments)
    members, variants = [], {}
    for asked in targets:
        target = find_target(asked)
        engine: dict[str, Any] = {"kind": target.engine_kind, "deferred": "built on the device"}
        if target.engine_kind == "inductor":
            member = f"engines/{target.name}/forward_0.pt2"
            record = {"torch": torch, "os": "linux", "arch": target.arch, "cpu_flags": []}
            engine = {"kind": "inductor", "member": member, "record": record}
            members.append(Member(member, CODE))
        place = f"programs/forward/{target.name}.json"
        members.append(Member(place, program))
        variants[target.name] = {
            "target": {**target.describe(), **(told or {})},
            "programs": {"forward": place},
            "engines": {"forward_0": engine},
        }
    value = manifest_json(methods={}, state=[], variants=variants, name=name)
    value |= {"weights": {"members": [], "parameters": {}, "buffers": {}}}
    value |= {"requires": list(requires)}
    write_bundle(path, Manifest.from_json(value), members)
    return path
