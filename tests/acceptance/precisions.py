# SPDX-License-Identifier: Apache-2.0
"""The rows that compare engines of one model: INT8 beside float16, sparse beside dense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.acceptance.packaging import (
    TURNS,
    cosine,
    livened,
    livened_single,
    loaded,
    others,
    packaged,
    to_cuda,
)
from tests.acceptance.rows import Row
from tests.acceptance.side_by_side import side_by_side
from trtpack.sparsity import GROUP, KEPT
from trtpack_runtime.clocks import DeviceClock

LOADER = """
import torch


def loader():
    draw = torch.Generator().manual_seed(1)
    return [torch.randn({shape}, generator=draw) for _ in range({count})]
"""
CALIBRATION_BATCHES = 2


def prepare_int8(row: Row, folder: Path) -> float:
    """Packages the model in INT8, calibrated, and in float16; answers the engines' seconds."""
    module, args = livened_single(row)
    data = folder / "data.py"
    shape = tuple(args[0].shape)
    data.write_text(LOADER.format(shape=shape, count=CALIBRATION_BATCHES))
    options = {"precision": "int8", "calibrate": f"{data}:loader"}
    seconds = packaged(module, args, folder / "int8.tar", **options)
    return seconds + packaged(*livened(row), folder / "fp16.tar")


def int8(row: Row, folder: Path) -> dict[str, Any]:
    """Cosine of both with eager in float32, and their latencies.

    The livened ResNet-50 answers different images alike, with a cosine of 0.96. Still the best
    answer that ignores its image would have 0.981, less than the table demands.
    """
    module, args = livened_single(row)
    engines = {name: loaded(folder / f"{name}.tar") for name in ("int8", "fp16")}
    inputs = to_cuda(others(args))
    given = {"int8": inputs, "fp16": tuple(value.half() for value in inputs)}
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        wanted = module.cuda()(*inputs)
        return _beside({name: (engine, given[name]) for name, engine in engines.items()}, wanted)


def prepare_sparse(row: Row, folder: Path) -> float:
    """Packages pruned weights with the builder's sparse tactics, and without them."""
    module, args = _pruned(row)
    seconds = packaged(module, args, folder / "sparse.tar", sparse=True)
    return seconds + packaged(module, args, folder / "dense.tar")


def sparse(row: Row, folder: Path) -> dict[str, Any]:
    """Cosine of both with eager, and their latencies."""
    module, args = _pruned(row)
    engines = {name: loaded(folder / f"{name}.tar") for name in ("sparse", "dense")}
    inputs = to_cuda(others(args))
    with torch.inference_mode():
        wanted = module.cuda()(*inputs)
        return _beside({name: (engine, inputs) for name, engine in engines.items()}, wanted)


def _beside(engines: dict[str, tuple[Any, Any]], wanted: Any) -> dict[str, Any]:
    calls = {name: lambda e=engine, i=given: e(*i) for name, (engine, given) in engines.items()}
    return {
        "cosines": {name: cosine(wanted, call()) for name, call in calls.items()},
        "latency_ms": side_by_side(calls, DeviceClock(), **TURNS),
    }


def _pruned(row: Row) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model in float16, two of every four weights zero along what a product sums over."""
    module, args = livened(row)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and part.weight.shape[1] % GROUP == 0:
            groups = part.weight.unflatten(1, (-1, GROUP))
            smallest = groups.abs().argsort(2)[:, :, : GROUP - KEPT]
            part.weight.data = groups.scatter(2, smallest, 0.0).flatten(1, 2)
    return module, args
