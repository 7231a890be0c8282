# SPDX-License-Identifier: Apache-2.0
"""Latency, throughput and memory over the batch: what is measured, where the knee is, the plot."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import chains, handmade
from tests.runtime.command import trtpack
from trtpack_runtime import dims, load
from trtpack_runtime.bench import Bench, Plan, Warmup, summarize
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.manifest import TensorSpec
from trtpack_runtime.module import BundleModule
from trtpack_tools.sweep_plot import check_plot, draw
from trtpack_tools.sweeping import Axis, Point, advise, axis_of, resized, sizes_of, sweep

X = TensorSpec("x", "FLOAT", (dims.dim("x", 0), 3, 8), (1, 3, 8), (4, 3, 8), (32, 3, 8))
PAIR = TensorSpec("p", "FLOAT", (dims.mul(2, dims.dim("x", 0)), 5), (2, 5), (8, 5), (64, 5))
AXIS = Axis("x", 0, 1, 32)
QUICK = Plan(warmup=0, repeats=3)


def point(size: int, ms: float) -> Point:
    """A size whose calls take so long."""
    times = summarize([0.9 * ms, ms, 1.1 * ms])
    return Point(size, Bench(Warmup(1, 0.1, True), times, None, 1e3 / ms, False, size), 10**8)


CURVE = [point(1, 2.0), point(2, 2.3), point(4, 3.1), point(8, 5.2), point(16, 10.1), point(32, 21)]


@pytest.fixture
def module(tmp_path: Path) -> BundleModule:
    return load(chains.write(tmp_path / "b.tar", 2))


def test_the_knee_is_the_smallest_size_that_does_nearly_the_most() -> None:
    found = advise(CURVE, [X, PAIR], AXIS, max_latency_ms=4.0)
    assert found is not None
    assert (found.knee, found.most, found.within) == (8, 16, 4)
    assert found.inputs == ("x=1/8/16x3x8", "p=2/16/32x5")
    assert found.profiles == ("x=1x3x8;p=2x5",)
    lone = advise(CURVE[:1], [X], AXIS, max_latency_ms=1.0)
    assert lone is not None
    assert (lone.knee, lone.within, lone.inputs, lone.profiles) == (1, None, ("x=1x3x8",), ())
    assert advise([Point(1, failed="no memory")], [X], AXIS) is None


def test_the_dimension_is_the_first_open_one_or_the_one_that_is_named(module: BundleModule) -> None:
    axis = axis_of(module, "forward")
    assert axis == axis_of(module, "forward", "x0:0")
    assert (str(axis), axis.low, axis.high) == ("x0:0", 1, 8)
    with pytest.raises(ConfigError, match="no open dimension x0:1") as caught:
        axis_of(module, "forward", "x0:1")
    assert "x0:0" in caught.value.hint


def test_sizes_are_those_asked_for_or_powers_of_two() -> None:
    assert sizes_of(Axis("x", 0, 3, 20), ()) == (3, 4, 8, 16, 20)
    assert sizes_of(AXIS, (8, 1, 8)) == (1, 8)
    with pytest.raises(ConfigError, match="x:0 takes 1 to 32, not 64"):
        sizes_of(AXIS, (1, 64))


def test_inputs_repeat_the_sample_and_follow_each_other(module: BundleModule) -> None:
    given = [torch.arange(8.0).reshape(2, 4), torch.ones(2, 4)]
    first, second = resized(module, "forward", given, axis_of(module, "forward"), 5)
    assert torch.equal(first, given[0][[0, 1, 0, 1, 0]])
    assert second.shape == (5, 4)
    smaller = resized(module, "forward", given, axis_of(module, "forward"), 1)
    assert torch.equal(smaller[0], given[0][:1])


def test_every_size_is_measured_and_the_state_put_back(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar"), target="cpu")
    told: list[Point] = []
    axis = axis_of(module, "forward")
    points = sweep(module, "forward", axis, (1, 4), QUICK, on_point=told.append)
    assert [p.size for p in points] == [1, 4]
    assert list(points) == told
    for one in points:
        assert one.bench is not None
        assert (one.bench.wall.calls, one.bench.items_per_call) == (3, one.size)
        assert one.memory_bytes is not None
    assert module.states["calls"] == 0


def test_memory_that_is_not_enough_ends_the_sweep(
    module: BundleModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module.run

    def short(method: str, inputs: list[torch.Tensor]) -> Any:
        if inputs[0].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return run(method, inputs)

    monkeypatch.setattr(module, "run", short)
    points = sweep(module, "forward", axis_of(module, "forward"), (1, 2, 4, 8), QUICK)
    assert [p.size for p in points] == [1, 2, 4]
    assert points[-1].bench is None
    assert "memory" in str(points[-1].failed)
    assert advise(points, [], AXIS) is not None


def test_the_plot_marks_the_knee(tmp_path: Path) -> None:
    found = advise(CURVE, [X], AXIS)
    assert found is not None
    for name, begins in (("s.svg", b"<?xml"), ("s.png", b"\x89PNG")):
        draw(tmp_path / name, "net: h200", "x:0", CURVE, found)
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert "<!-- knee: 8 -->" in (tmp_path / "s.svg").read_text()


def test_what_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"no format is called \.txt"):
        check_plot(tmp_path / "s.txt")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_plot(tmp_path / "none" / "s.svg")
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="matplotlib") as caught:
        check_plot(tmp_path / "s.svg")
    assert "pip install 'trtpack[plot]'" in caught.value.hint


def test_the_command_prints_a_table_and_what_to_build(tmp_path: Path) -> None:
    bundle = chains.write(tmp_path / "b.tar", 2)
    told = trtpack("sweep", bundle, "--batch", "1,4", "--warmup", "0", "--repeats", "3")
    assert told.code == 0, told.err
    assert "x0:0  p50 ms" in told.out
    assert "<- knee" in told.out
    assert ("; none larger was measured" in told.out) == ("knee: 4," in told.out)
    assert "--input 'x0=1" in told.out


@pytest.mark.slow
def test_the_command_tells_json_and_what_is_wrong(tmp_path: Path) -> None:
    bundle = chains.write(tmp_path / "b.tar")
    told = trtpack("sweep", bundle, "--batch", "1,2", "--repeats", "3", "--json")
    found = json.loads(told.out)
    assert [p["size"] for p in found["points"]] == [1, 2]
    assert found["advice"]["knee"] in (1, 2)
    for arguments, problem in (
        (("--batch", "1,64"), "takes 1 to 8, not 64"),
        (("--batch", "1,x"), "no sizes such as 1,2,4"),
        (("--input", "1x4"), "a bundle has its own"),
        (("--plot", tmp_path / "s.txt"), "no format is called .txt"),
    ):
        refused = trtpack("sweep", bundle, *arguments)
        assert refused.code != 0
        assert problem in refused.err
