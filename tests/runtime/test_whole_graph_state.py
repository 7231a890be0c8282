# SPDX-License-Identifier: Apache-2.0
"""State in programs that are replayed as CUDA graphs, against a double."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runtime import chains
from tests.runtime.captures import Gpu, installed
from tests.runtime.graphed import graphed
from trtpack_runtime import load
from trtpack_runtime.module import BundleModule


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return installed(monkeypatch)


@pytest.fixture
def stateful(tmp_path: Path, gpu: Gpu) -> BundleModule:
    path = chains.write(tmp_path / "s.tar", 1, 2, state=True, methods=("forward", "decode"))
    return graphed(load(path), gpu)


def test_state_is_updated_within_the_graph(stateful: BundleModule, gpu: Gpu) -> None:
    want = torch.zeros(2, 4)
    place = stateful.states["total"]
    for number in range(5):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        torch.testing.assert_close(stateful(x), want)
        torch.testing.assert_close(stateful.states["total"], want)
        assert gpu.told() == (["runs"] * 2, ["captured", "replays"], ["replays"])[min(number, 2)]
    assert stateful.states["total"] is place
    stateful.reset()
    assert not place.any()
    x = torch.randn(2, 4)
    torch.testing.assert_close(stateful(x), chains.doubled(x, times=2))


def test_two_methods_in_graphs_share_the_state(stateful: BundleModule) -> None:
    want = torch.zeros(2, 4)
    for number in range(8):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        method = ("forward", "decode")[number % 2]
        torch.testing.assert_close(stateful.method(method)(x), want)


def test_state_in_new_memory_is_captured_anew(stateful: BundleModule, gpu: Gpu) -> None:
    x = torch.randn(2, 4)
    for _ in range(3):
        stateful(x)
    stateful._state.replace("total", torch.ones(2, 4))
    gpu.told()
    torch.testing.assert_close(stateful(x), chains.doubled(x, torch.ones(2, 4), times=2))
    assert gpu.told() == ["captured", "replays"]


def test_a_failed_capture_leaves_the_state_alone(stateful: BundleModule, gpu: Gpu) -> None:
    gpu.fails = "no"
    want = torch.zeros(2, 4)
    for _ in range(3):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        torch.testing.assert_close(stateful(x), want)


def test_state_of_a_module_loaded_in_inference_mode_is_captured(tmp_path: Path, gpu: Gpu) -> None:
    with torch.inference_mode():
        module = graphed(load(chains.write(tmp_path / "s.tar", 1, 2, state=True)), gpu)
    want = torch.zeros(2, 4)
    for number in range(4):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        with torch.inference_mode(number % 2 == 0):
            torch.testing.assert_close(module(x), want)
    assert gpu.told()[-1] == "replays"
