# SPDX-License-Identifier: Apache-2.0
"""``trtpack inspect`` tells what a bundle holds, to people and to programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.bundles import manifest_json, write_tiny
from tests.runtime.command import trtpack
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli import text
from trtpack_runtime.dims import dim


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundle") / "tiny.tar")


def test_for_people(tiny: Path) -> None:
    done = trtpack("inspect", tiny)
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == f"""\
tiny  ({tiny}, {text.size(tiny.stat().st_size)})
  format    trtpack.bundle/1, written by trtpack 0.1.0
  digest    {open_bundle(tiny).digest}
  requires  format:1
  weights   38.5 kB in 3 tensors (1 parameter, 0 buffers)
  state     steps int64 scalar
  metadata  labels (2 entries)

forward()
  in     x      float  1..8x3, best 4x3
  out    y      float  [x.0]x7
  out    found  int64  ?
  proof  1 golden sample

target cpu  (inductor, x86_64)
  forward_0  1 operator  inductor, 72 kB

target orin  (tensorrt, sm 8.7)
  forward_0  1 operator  tensorrt, deferred to the device:
    no such GPU here

operators (1, of 1 kind)
  1  aten.relu.default

4 members, 111 kB; list them with --members
"""
    )


def test_every_member_with_its_digest(tiny: Path) -> None:
    out = trtpack("inspect", "--members", tiny).out
    for entry in open_bundle(tiny).entries.values():
        assert entry.name in out
        assert entry.sha256 in out


def test_for_programs(tiny: Path) -> None:
    found = json.loads(trtpack("inspect", "--json", tiny).out)
    assert found["name"] == "tiny"
    assert found["bundle"]["size"] == tiny.stat().st_size
    assert found["bundle"]["digest"] == open_bundle(tiny).digest
    assert (found["weights"]["tensors"], found["weights"]["bytes"]) == (3, 84 + 8 + 38400)
    assert found["methods"] == manifest_json()["methods"]
    (segment,) = found["variants"]["orin"]["segments"]["forward"]
    assert segment == {
        "name": "forward_0",
        "kind": "aten",
        "operators": {"aten.relu.default": 1},
        "engine": "tensorrt",
        "engine_bytes": None,
        "deferred": "no such GPU here",
    }


def test_what_operators_compute_in(tmp_path: Path) -> None:
    told = "mixed: 49 in fp16, 2 in fp32; 4 casts"
    path = write_tiny(tmp_path / "mixed.tar", report={"precision": told})
    assert f"  precision  {told}\n" in trtpack("inspect", path).out
    path = write_tiny(tmp_path / "odd.tar", report={"precision": [1]})
    assert "  precision  " not in trtpack("inspect", path).out


def test_most_frequent_operators_first(tmp_path: Path) -> None:
    counts = {f"aten.op{i}.default": i + 1 for i in range(20)}
    refused = [{"op": "aten.unique2.default", "count": 1, "reason": "its size is in the data"}]
    report = {"operators": counts, "targets": {"cpu": {"refused": refused}}}
    path = write_tiny(tmp_path / "x.tar", report=report)
    short, long = trtpack("inspect", path).out, trtpack("inspect", "--operators", path).out
    assert "operators (210, of 20 kinds)\n  20  aten.op19.default\n" in short
    assert "aten.op0.default" not in short
    assert "and 8 more kinds" in short
    assert "aten.op0.default" in long
    assert "left to PyTorch for cpu:\n    1  aten.unique2.default  its size is in the data" in short


def test_plans_that_carry_their_weights_say_so(tmp_path: Path) -> None:
    variants = manifest_json()["variants"]
    variants["cpu"]["target"] = {"name": "cpu", "kind": "tensorrt-rtx", "tensorrt": "1.7.1"}
    variants["cpu"]["engines"]["forward_0"]["kind"] = "tensorrt-rtx"
    out = trtpack("inspect", write_tiny(tmp_path / "x.tar", variants=variants)).out
    assert "target cpu  (tensorrt-rtx, TensorRT-RTX 1.7.1)" in out
    assert "tensorrt-rtx, 72 kB, its weights included" in out


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "x.tar", name="evil\x1b[31m\nname")
    out = trtpack("inspect", path).out
    assert "evil?[31m?name" in out
    assert "\x1b" not in out


def test_damage_is_told(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tiny.read_bytes()[:100_000])
    for arguments in ([], ["--json"]):
        done = trtpack("inspect", *arguments, path)
        error, hint = done.err.splitlines()
        assert (done.code, done.out) == (5, "")
        assert error.startswith(f"error: {path}: ends ")
        assert hint.startswith("hint: copy the bundle again")


def test_it_needs_neither_torch_nor_numpy(tiny: Path) -> None:
    code = (
        "import sys; from trtpack_runtime.cli import main\n"
        f"try: main(['inspect', {str(tiny)!r}])\n"
        "except SystemExit: print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (44_912_345, "44.9 MB"),
     (999_999, "1 MB"), (123_456, "123 kB"), (5 << 40, "5.5 TB"), (10**16, "10000 TB")],
)  # fmt: skip
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_shapes() -> None:
    assert text.shape((1, 3)) == "1x3"
    assert text.shape(()) == "scalar"
    assert text.shape((None, dim("x", 0) + 1)) == "?x[1 + x.0]"


def test_sizes_that_follow_from_another_input_are_told(tmp_path: Path) -> None:
    methods = manifest_json()["methods"]
    (x,) = methods["forward"]["inputs"]
    mask = {**x, "name": "mask", "shape": [{"dim": ["x", 0]}, 3]}
    methods["forward"]["inputs"].append(mask)
    out = trtpack("inspect", write_tiny(tmp_path / "x.tar", methods=methods)).out
    assert "  in     mask   float  [x.0]x3, best 4x3\n" in out


def test_long_lines_are_wrapped_for_a_terminal(tmp_path: Path) -> None:
    variants = manifest_json()["variants"]
    reason = "an engine for SM 8.7 is built by TensorRT on such a GPU, which this host is not"
    variants["orin"]["engines"]["forward_0"]["deferred"] = reason
    path = write_tiny(tmp_path / "x.tar", variants=variants)
    out = trtpack("inspect", path, env={"COLUMNS": "60"}).out
    assert "    an engine for SM 8.7 is built by TensorRT on such a GPU,\n    which this" in out
    assert reason in trtpack("inspect", path).out


@pytest.mark.parametrize("width", [40, 80])
def test_the_last_column_is_wrapped(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = text.columns([("a", "cell", "word " * 40), ("b", "c", "short")]).splitlines()
    assert all(len(line) <= width for line in lines)
    assert {line[:11] for line in lines[1:-1]} == {" " * 11}
    assert lines[-1] == "  b  c     short"


def test_columns() -> None:
    rows = [("a", "long cell", "x"), ("bb", "c", "y"), ("alone",)]
    assert text.columns(rows) == "  a   long cell  x\n  bb  c          y\n  alone"
    assert text.columns([]) == ""
