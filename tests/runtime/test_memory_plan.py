# SPDX-License-Identifier: Apache-2.0
"""The memory a bundle is predicted to take, worked out by hand beside what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred, starts
from trtpack_runtime import free_memory
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device import Memory
from trtpack_runtime.engines._estimate import peak_bytes
from trtpack_runtime.engines._figures import memory_of
from trtpack_runtime.memory_plan import memory_plan
from trtpack_runtime.resolve import choose, resolve

WEIGHT = 4 * 4 * 4
"""One matrix of 4 by 4."""
CALL = 2 * 4 * 4
"""A tensor of the method at its best shape, 2 by 4."""
LARGEST = 2 * 8 * 4 * 4
"""An engine's input and output at the largest shape, 8 by 4."""


def told(path: Path, **how: Any) -> dict[str, int]:
    bundle = open_bundle(path)
    here = deferred.h200() if how.pop("engines", True) else deferred.h200(gpus=[])
    candidates = resolve(bundle.manifest, here, ())
    choice = choose(bundle.manifest, candidates, here, target="h200")
    plan = memory_plan(bundle, choice, {}, how.pop("avoided", {}), **how)
    return {part.what: part.nbytes for part in plan.parts} | {"further": plan.context_bytes}


ENGINES = {f"engine forward_{i}": len(starts.PLAN) for i in (0, 1)}
CONTEXTS = {f"context of forward_{i}": LARGEST for i in (0, 1)}
RECORDED = {f"engine forward_{i}": 1000 for i in (0, 1)}
RECORDED |= {f"context of forward_{i}": 300 for i in (0, 1)}
BORDERS = {"inputs and outputs": 2 * CALL}
ESTIMATED = {**ENGINES, **CONTEXTS, **BORDERS, "further": 2 * LARGEST}
TOLD = {"weights_bytes": 1000, "context_bytes": 300}


@pytest.mark.parametrize(
    ("record", "how", "wanted"),
    [
        ({}, {}, ESTIMATED),
        (TOLD, {}, {**RECORDED, **BORDERS, "further": 600}),
        ({}, {"cuda_bytes": 7}, {"CUDA": 7, **ESTIMATED}),
        (
            {},
            {"avoided": {"forward_1": "broken"}},
            {
                "engine forward_0": len(starts.PLAN),
                "context of forward_0": LARGEST,
                "PyTorch's weights": WEIGHT,
                "PyTorch's activations": 2 * CALL,
                **BORDERS,
                "further": LARGEST,
            },
        ),
        (
            {},
            {"engines": False},
            {
                "PyTorch's weights": 3 * WEIGHT,
                "PyTorch's activations": 2 * CALL,
                **BORDERS,
                "further": 0,
            },
        ),
        (
            {},
            {"engines": False, "on_gpu": False},
            {"PyTorch's activations": 2 * CALL, **BORDERS, "further": 0},
        ),
    ],
)
def test_what_a_module_takes(
    tmp_path: Path, record: dict[str, int], how: dict[str, Any], wanted: dict[str, int]
) -> None:
    path = starts.write(tmp_path / "bundle.tar", **record)
    assert told(path, **{"on_gpu": True, **how}) == wanted


def test_layer_by_layer_an_input_outlives_its_last_reader_not() -> None:
    # x and its product, then the product and its activation, at 2 by 4
    assert peak_bytes(deferred.network("w0")) == 2 * CALL


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((), {}),
        (("INFO: Total Weights Memory: 320 bytes",), {"weights_bytes": 320}),
        (
            (
                "INFO: Total Device Persistent Memory: 64 bytes",
                "INFO: Total Activation Memory: 1000",
                "INFO: Total Activation Memory: 8192000 bytes",
                "INFO: Total Host Persistent Memory: 80 bytes",
            ),
            {"context_bytes": 8192064},
        ),
    ],
)
def test_what_tensorrt_tells_of_it(lines: tuple[str, ...], found: dict[str, int]) -> None:
    assert memory_of(lines) == found


class _Cuda:
    """As much of ``torch.cuda`` as tells memory."""

    def memory_reserved(self, device: Any) -> int:
        return 30

    def memory_allocated(self, device: Any) -> int:
        return 10

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return 500, 1000


@pytest.mark.parametrize(
    ("device", "gpus", "free"),
    [
        ("cpu", [], 4096),
        ("meta", [], None),
        ("cuda:0", [{"integrated": False}], 500 + 20),
        ("cuda:0", [{"integrated": True}], 4096 + 20),
    ],
)
def test_what_is_free(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: list[Any], free: int | None
) -> None:
    monkeypatch.setattr(free_memory, "memory", lambda: Memory(8192, 4096))
    monkeypatch.setattr(torch, "cuda", _Cuda())
    found = free_memory.free_bytes(torch.device(device), {"gpus": gpus})
    assert found == free
