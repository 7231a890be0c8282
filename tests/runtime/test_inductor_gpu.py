# SPDX-License-Identifier: Apache-2.0
"""Segments that AOTInductor compiled for a GPU: which machine they fit, and how they are called."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade
from trtpack_runtime.engines import LoadContext, inductor
from trtpack_runtime.errors import BundleError

GPU = {"sm": "9.0", "name": "NVIDIA H200", "cuda": "13.0"}
RECORD = {"torch": "2.11.0", "os": "linux", "arch": "x86_64", "cpu_flags": ["avx2"], "gpu": GPU}
FACTS = {
    "torch": "2.11.0+cu130",
    "os": "linux",
    "arch": "x86_64",
    "cpu": {"flags": ["avx2", "fma"]},
    "gpus": [{"sm": "9.0"}],
}


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        ({}, "exact", "built for PyTorch 2.11.0 on SM 9.0"),
        ({"gpus": [{"sm": "9.0"}, {"sm": "8.9"}]}, "exact", "on SM 9.0"),
        ({"gpus": [{"sm": "8.9"}]}, "rebuild", "built for SM 9.0, this machine has SM 8.9"),
        ({"torch_cuda": "13.2"}, "exact", "on SM 9.0"),
        ({"torch_cuda": "12.8"}, "rebuild", "built for CUDA 13.0, PyTorch here is for 12.8"),
        ({"gpus": []}, "impossible", "needs an NVIDIA GPU of SM 9.0, this machine has none"),
        ({"gpus": [], "problems": ["no driver"]}, "impossible", "SM 9.0, no driver"),
        ({"torch": "2.6.0"}, "rebuild", "built for PyTorch 2.11.0, this machine has 2.6.0"),
        ({"arch": "aarch64"}, "rebuild", "this machine is aarch64"),
        ({"cpu": {"flags": []}}, "rebuild", "CPU instructions this machine lacks: avx2"),
        ({"torch": None}, "impossible", "PyTorch is not installed"),
    ],
)
def test_a_machine_is_told_whether_it_fits(changes: dict[str, Any], fit: str, reason: str) -> None:
    verdict = inductor.check(RECORD, FACTS | changes)
    assert verdict.fit == fit
    assert reason in verdict.reason


class Library:
    """Stands for a loaded library: answers its one input, and notes how it was called."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0
        self.devices: list[int] = []
        self.given: list[torch.Tensor] = []
        self.constants: dict[str, torch.Tensor] = {}

    def get_constant_fqns(self) -> list[str]:
        return ["c0", "c1"]

    def load_constants(self, constants: dict[str, torch.Tensor], *how: bool) -> None:
        self.constants = constants

    def run(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.devices.append(torch.cuda.current_device())
        self.given = list(inputs)
        self.inside -= 1
        return (inputs[0] + 1,)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of the current GPU, where there is none; PyTorch is for CUDA 13."""
    now = [0]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: now.__setitem__(0, index))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    return now


def context(device: str, record: dict[str, Any] = RECORD) -> LoadContext:
    constants = dict(handmade.Classifier().state_dict())
    segment = handmade.one_segment().segments[0]
    return LoadContext(segment, constants, torch.device(device), record=record)


def loaded(monkeypatch: pytest.MonkeyPatch, device: str = "cuda:1") -> tuple[Any, Library]:
    library = Library()
    opened: list[tuple[Any, ...]] = []

    def loader(*arguments: Any) -> Library:
        opened.append(arguments)
        return library

    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", loader)
    run = inductor.load(Path("segment.pt2"), context(device))
    # one runner, without what it does for threads: that cannot be captured
    assert [arguments[1:] for arguments in opened] == [("model", True, 1, 1)]
    return run, library


def test_it_runs_with_its_gpu_as_the_current_one(
    current: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, library = loaded(monkeypatch)
    assert run.capturable
    assert set(library.constants) == {"c0", "c1"}
    assert torch.equal(run([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert (library.devices, current) == ([1], [0])
    current[0] = 1
    run([torch.ones(2)])
    assert (library.devices, current) == ([1, 1], [1])


@pytest.mark.usefixtures("current")
def test_kernels_get_what_they_take_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    run, library = loaded(monkeypatch)
    values = torch.arange(12.0)
    for given in (values, values[1:5], values.reshape(3, 4).T):
        run([given])
        (seen,) = library.given
        assert seen.is_contiguous()
        assert seen.data_ptr() % 16 == 0
        assert torch.equal(seen, given)
    run([values])
    assert library.given[0].data_ptr() == values.data_ptr()  # no copy where none is needed


@pytest.mark.usefixtures("current")
def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    run, library = loaded(monkeypatch)
    threads = [
        threading.Thread(target=lambda: [run([torch.ones(1)]) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(library.devices), library.most) == (200, 1)


@pytest.mark.usefixtures("current")
def test_an_error_leaves_the_current_gpu(
    current: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = loaded(monkeypatch)
    with pytest.raises(IndexError):
        run([])
    assert current == [0]
    assert len(run([torch.ones(1)])) == 1


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize(
    ("device", "gpu", "problem"),
    [
        ("cpu", GPU, "compiled for NVIDIA H200, not for cpu"),
        ("cuda", {**GPU, "cuda": "12.8"}, r"compiled for CUDA 12\.8, PyTorch here is for 13\.2"),
        ("cuda", None, "compiled for the CPU, not for cuda"),
    ],
)
def test_another_device_or_cuda_is_refused(device: str, gpu: Any, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        inductor.load(Path("segment.pt2"), context(device, RECORD | {"gpu": gpu}))
