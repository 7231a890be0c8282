# SPDX-License-Identifier: Apache-2.0
"""``trtpack debug accuracy``: the layer that departs is told and pinned, else why it cannot be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred, handmade, planned
from tests.runtime.command import trtpack
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import DeviceError
from trtpack_tools.debugging import check_builds_here, choose_segment


@pytest.mark.slow
def test_simulated(tmp_path: Path) -> None:
    path = planned.write_deep(tmp_path / "deep.tar")
    done = trtpack("debug", "accuracy", path, "--target", "here", "--simulate", "--all")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        "forward_0 of here: PyTorch in its own types against the network in FLOAT\n"
        "looked at 13 of 13 layers in 1 run, "
    )
    assert "first to depart: blocks.3/linear (matrix_multiply), from blocks.3 (model.py:13)" in (
        done.out
    )
    assert "to compute in FLOAT, add --pin -o FILE\n  blocks.3/linear\n  blocks.3.act/relu\n" in (
        done.out
    )
    marked = [line.split()[1] for line in done.out.splitlines() if line.startswith("  >")]
    assert marked == ["blocks.3/linear"]


@pytest.mark.slow
def test_pinned_by_the_command(tmp_path: Path) -> None:
    path, to = planned.write_deep(tmp_path / "deep.tar"), tmp_path / "pinned.tar"
    arguments = ["--target", "here", "--simulate", "--pin", "-o", to]
    done = trtpack("debug", "accuracy", path, *arguments)
    assert (done.code, done.err) == (0, "")
    assert f"wrote {to}, 3 layers in FLOAT, " in done.out
    assert "error of the worst output in PyTorch: inf before, 0.000" in done.out
    assert "The engine was not built here: its precision pins are new, and " in done.out
    assert done.out.endswith(
        f"prove it with: trtpack run {to}\n"
        "a value overflows in blocks.3/linear: where the model itself overflows, "
        "its golden answers do too and this run can fail\n"
    )
    again = trtpack("debug", "accuracy", to, "--target", "here", "--simulate", "--json")
    found = json.loads(again.out)
    assert (found["first"], found["pins"]) == (None, [])


@pytest.mark.slow
def test_a_pin_where_nothing_overflows(tmp_path: Path) -> None:
    path, to = planned.write_deep(tmp_path / "deep.tar"), tmp_path / "pinned.tar"
    arguments: list[str | Path] = [
        "--target",
        "here",
        "--simulate",
        "--pin-layer",
        "blocks.0/linear",
        "-o",
        to,
    ]
    done = trtpack("debug", "accuracy", path, *arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"prove it with: trtpack run {to}\n")
    arguments += ["--pin-layer", "blocks.3/linear", "--json"]
    told = json.loads(trtpack("debug", "accuracy", path, *arguments).out)
    assert told["written"]["overflowing"] == ["blocks.3/linear"]


@pytest.mark.slow
def test_nothing_to_pin(tmp_path: Path) -> None:
    bundle = handmade.write(tmp_path / "bundle.tar")
    to = tmp_path / "pinned.tar"
    done = trtpack("debug", "accuracy", bundle, "--simulate", "--pin", "-o", to)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("every layer is within its tolerance\n"
                             "nothing to pin, no bundle was written\n")  # fmt: skip
    assert not to.exists()


def late(*values: Any) -> Any:
    """A row for the slow lane: each starts a process that loads PyTorch."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--target", "cpu"], 2, "only TensorRT engines can be compared layer by layer; forward_0"),
        late(["--segment", "forward_1"], 2, "only TensorRT engines can be compared layer by layer"),
        (["--segment", "forward_7"], 2, "there is no segment 'forward_7'"),
        late(["--target", "nowhere"], 2, "the bundle has no variant 'nowhere'"),
        (["--pin"], 2, "--pin writes a new bundle"),
        (["-o", "x.tar"], 2, "-o is for a bundle with pins"),
        late(["--simulate", "--sample", "3"], 2, "there is no golden sample 3"),
        (["--simulate", "--own-types"], 2, "--simulate compares the network's types with FLOAT"),
        late(
            ["--simulate", "--pin-layer", "clippt", "-o", "x.tar"],
            2,
            "the network has no layer 'clippt'",
        ),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_debugged(
    arguments: Sequence[str], code: int, error: str, tmp_path: Path
) -> None:
    done = trtpack("debug", "accuracy", handmade.write(tmp_path / "bundle.tar"), *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {error}")
    assert "\nhint: " in done.err


@pytest.mark.slow
def test_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = trtpack("debug", "accuracy", handmade.write(tmp_path / "bundle.tar"))
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith("error: cannot build an engine of forward_0 of orin here")
    assert "--simulate" in done.err


def test_a_gpu_that_pytorch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device with PyTorch's wheel for the CPU."""
    bundle = open_bundle(deferred.write(tmp_path / "bundle.tar", variants=("h200",)))
    found = choose_segment(bundle, None, "forward_0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cannot use the GPU of this machine") as caught:
        check_builds_here(bundle, found, deferred.h200())
    assert "--simulate" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_builds_here(bundle, found, deferred.h200())
