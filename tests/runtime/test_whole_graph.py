# SPDX-License-Identifier: Apache-2.0
"""Replaying whole programs as CUDA graphs, against a double. That CUDA does the same is proved on a
GPU."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from tests.runtime import chains
from tests.runtime.captures import Gpu, installed
from tests.runtime.graphed import graphed, some
from trtpack_runtime import load
from trtpack_runtime.module import BundleModule


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return installed(monkeypatch)


@pytest.fixture
def module(tmp_path: Path, gpu: Gpu) -> BundleModule:
    return graphed(load(chains.write(tmp_path / "b.tar", 2, 3)), gpu)


def test_the_second_call_with_equal_shapes_is_captured_and_later_ones_replay(
    module: BundleModule, gpu: Gpu
) -> None:
    for want in (["runs"] * 3, ["captured", "replays"], ["replays"], ["replays"]):
        given = some()
        answer = module(*given)
        torch.testing.assert_close(answer, chains.doubled(*given, times=3))
        assert gpu.told() == want


def test_answers_are_the_callers_own(module: BundleModule) -> None:
    given = [some() for _ in range(4)]
    answers = [module(*x) for x in given]
    for answer, x in zip(answers, given, strict=True):
        torch.testing.assert_close(answer, chains.doubled(*x, times=3))


def test_inputs_that_stay_are_read_where_they_are(module: BundleModule, gpu: Gpu) -> None:
    kept, moving = some()
    for _ in range(4):
        moving = torch.randn(2, 4)
        module(kept, moving)
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.fixed == (True, False)
    kept += 1
    torch.testing.assert_close(module(kept, moving), chains.doubled(kept, moving, times=3))


@pytest.mark.slow
def test_memory_that_only_has_an_old_address_is_not_taken_for_fixed(module: BundleModule) -> None:
    for _ in range(3):
        given = some()
        module(*given)
        del given
        gc.collect()
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.fixed == (False, False)


def test_what_was_fixed_and_moves_is_captured_anew_and_the_old_memory_left_alone(
    module: BundleModule, gpu: Gpu
) -> None:
    a, b = some()
    for _ in range(3):
        module(a, b)
    gpu.told()
    before = a.clone()
    for want in (["captured", "replays"], ["replays"]):
        other = torch.randn(2, 4)
        torch.testing.assert_close(module(other, b), chains.doubled(other, b, times=3))
        assert gpu.told() == want
    assert torch.equal(a, before)


def test_views_in_another_order_are_copied(module: BundleModule) -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    for x in (a, a, a.t(), a):
        torch.testing.assert_close(module(x, b), chains.doubled(x, b, times=3))


def test_several_shapes_are_kept_and_the_oldest_forgotten(tmp_path: Path, gpu: Gpu) -> None:
    module = graphed(load(chains.write(tmp_path / "b.tar", 1, 2)), gpu, size=2)
    for rows in (1, 1, 2, 2):
        module(torch.randn(rows, 4))
    gpu.told()
    for rows in (1, 2, 1):
        module(torch.randn(rows, 4))
    assert gpu.told() == ["replays"] * 3
    module(torch.randn(3, 4))
    module(torch.randn(2, 4))
    assert gpu.told() == ["runs"] * 4
    assert "the host waits for the caller" in gpu.waits


def test_given_outputs_that_stay_are_written_in_place(module: BundleModule, gpu: Gpu) -> None:
    given, out = some(), torch.empty(2, 4)
    for _ in range(3):
        assert module.run("forward", given, out=[out])[0] is out
        torch.testing.assert_close(out, chains.doubled(*given, times=3))
        given[0] += 1
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.writes_out
    gpu.told()
    kept, other = out.clone(), torch.empty(2, 4)
    for want in (["captured", "replays"], ["replays"], ["replays"]):
        module.run("forward", given, out=[other])
        torch.testing.assert_close(other, chains.doubled(*given, times=3))
        assert gpu.told() == want
        given[1] -= 1
    assert torch.equal(out, kept)
    torch.testing.assert_close(module(*given), chains.doubled(*given, times=3))


def test_reused_outputs_are_the_graphs_own(module: BundleModule) -> None:
    call = module._loaded.calls["forward"]
    call.reuses = True
    given = some()
    answers = [module(*given) for _ in range(4)]
    assert answers[2] is answers[3]
    torch.testing.assert_close(answers[3], chains.doubled(*given, times=3))


def test_what_inference_mode_captured_is_of_use_outside_of_it(module: BundleModule) -> None:
    given = some()
    with torch.inference_mode():
        for _ in range(2):
            module(*given)
    other = some()
    torch.testing.assert_close(module(*other), chains.doubled(*other, times=3))


def test_outputs_given_in_inference_mode_are_written_in_place(module: BundleModule) -> None:
    with torch.inference_mode():
        given, out = some(), torch.empty(2, 4)
        for _ in range(3):
            module.run("forward", given, out=[out])
            torch.testing.assert_close(out, chains.doubled(*given, times=3))
            given[0] += 1
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    assert [seen.graph.writes_out for seen in graphs._seen.values() if seen.graph] == [True]
