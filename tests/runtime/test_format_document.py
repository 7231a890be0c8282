# SPDX-License-Identifier: Apache-2.0
"""docs/reference/bundle-format.md says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tests.runtime.bundles import archive_bytes, manifest_json, write_tiny
from trtpack_runtime import network as networks
from trtpack_runtime import program as programs
from trtpack_runtime.dtypes import DTYPES, NETWORK_DTYPES
from trtpack_runtime.engines import tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.manifest import (
    EngineRef,
    Golden,
    Limits,
    Manifest,
    Method,
    StateTensor,
    TensorSpec,
    Variant,
    Weights,
)
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor
from trtpack_runtime.program import Program, Segment, StateSlot
from trtpack_runtime.tar_layout import Entry

DOCUMENT = (Path(__file__).parents[2] / "docs/reference/bundle-format.md").read_text()


def test_the_worked_example() -> None:
    data = archive_bytes(b"{}", [("a.json", b"first\n"), ("b/c.bin", bytes(76800))])
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    position = 0
    for offset, length, what in rows:
        assert int(offset) == position
        part = data[position : position + int(length)]
        position += int(length)
        if match := re.match(r"header `(.+?)`(?:, type `(.)`)?, size (\d+)", what):
            assert part[:100].rstrip(b"\0").decode() == match[1]
            assert part[156:157].decode() == (match[2] or "0")
            assert int(part[124:135], 8) == int(match[3])
        elif match := re.match(r"`(.+?)…?`", what):
            assert part.startswith(match[1].encode())
    assert position == len(data)
    assert len(rows) == 11


def test_the_program_that_reads_a_bundle(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code, write_tiny(tmp_path / "x.tar")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("tiny cpu orin\n", "")


@pytest.mark.parametrize(
    "part",
    [Manifest, Method, TensorSpec, Golden, Limits, StateTensor, Weights, Variant, EngineRef, Entry],
)
def test_every_key_of_the_manifest_is_explained(part: type) -> None:
    keys = {field.name for field in fields(part)}
    keys |= set(Manifest.from_json(manifest_json()).to_json()) if part is Manifest else set()
    missing = {key for key in keys if not re.search(rf"[`\".]{key}[`\"]", DOCUMENT)}
    assert not missing


def test_every_key_of_a_record_and_of_its_options_is_explained() -> None:
    facts = {"os": "linux", "arch": "aarch64", "gpus": [{"name": "Orin", "sm": "8.7"}]}
    record = tensorrt.record_of("10.3.0", BuildOptions(), facts)
    for key in {*record, *record["options"], "tensorrt_rtx", "cpu_flags", "isa"}:
        assert f"`{key}`" in DOCUMENT, key


def test_every_key_of_a_program_and_of_a_network_is_explained() -> None:
    with_state = Program(
        "forward",
        ("x",),
        ("y",),
        (Segment("s", "network", {"x": "x"}, {"y": "y"}, network="networks/n.json"),),
        (StateSlot("slot", "a", "b"),),
        recipes={"w": {}},
    )
    value = programs.to_json(with_state)
    keys = {*value, *value["segments"][0], *value["state"][0], "graph"}
    layer = Layer("relu", "n", {"input": "x"}, {}, ("y",), "m.py:1")
    tensors = {name: Tensor(name, "FLOAT", (1,)) for name in "xy"}
    constants = {"c": Constant("c", "FLOAT", (1,), "stored", {"op": "aten.neg"})}
    network = networks.to_json(
        Network((tensors["x"],), ("y",), constants, (layer,), tensors, (Profile({}),))
    )
    keys |= {*network, *network["layers"][0], *network["constants"][0], "regions"}
    missing = {key for key in keys if not re.search(rf"[`\"]{key}[`\"]", DOCUMENT)}
    assert not missing


def test_every_requirement_is_explained() -> None:
    for entry in ("format:1", "golden:follows", "torch>=2.6", "module:my_ops"):
        Manifest.from_json(manifest_json(requires=[entry]))
        assert f"| `{entry}` |" in DOCUMENT


def test_every_type_is_named() -> None:
    match = re.search(r"as TensorRT names them: `(.*?)`; outside\s+networks also `(.*?)`", DOCUMENT)
    assert match
    named = {*match[1].split(), *match[2].split()}
    assert named == set(DTYPES)
    assert set(match[1].split()) == NETWORK_DTYPES
