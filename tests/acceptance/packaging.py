# SPDX-License-Identifier: Apache-2.0
"""What every row does: a model with weights that matter, its bundle, and how near answers are."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

import trtpack
from tests.acceptance.rows import Row
from trtpack.livening import check_alive, liven, vary
from trtpack.pipeline import ALIVE_TOLERANCE
from trtpack_runtime.loading import load
from trtpack_runtime.module import BundleModule

LIVENED_BATCH = 8
TURNS = {"rounds": 5, "repeats": 40, "untimed": 10}
"""Of ``side_by_side``."""


def livened(row: Row) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """The module in float16, its outputs dependent on its inputs, and its inputs."""
    module, args = livened_single(row)
    return module.half(), tree_map_only(
        torch.Tensor, lambda t: t.half() if t.is_floating_point() else t, args
    )


def livened_single(row: Row) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """The module and its inputs in float32."""
    torch.manual_seed(0)
    module, args = row.make()
    module.eval().requires_grad_(False)
    few = tuple(value[:LIVENED_BATCH] for value in args)
    liven(module, few, seed=0)
    alive = check_alive(module, few, ALIVE_TOLERANCE)
    print(f"{row.name}: outputs differ by {alive:.2f} between inputs", file=sys.stderr)
    return module, args


def packaged(module: torch.nn.Module, args: tuple[Any, ...], bundle: Path, **options: Any) -> float:
    """Builds a bundle for this machine; answers the seconds that its engines took."""
    chosen = trtpack.Options(targets=("native",), output=bundle, strict=True, **options)
    report = trtpack.build((module, args), options=chosen).report
    (target,) = report.targets
    for engine in target.engines:
        print(f"{bundle.name}: {engine}", file=sys.stderr)
    return sum(engine.seconds for engine in target.engines)


def loaded(bundle: Path, *, cuda_graphs: bool = False) -> BundleModule:
    """The bundle on the GPU, where every segment must run as an engine."""
    began = time.perf_counter()
    module = load(bundle, device="cuda", strict=True, cuda_graphs=cuda_graphs)
    kinds = [segment.kind for segment in module.segments()]
    print(f"loaded {kinds} in {time.perf_counter() - began:.2f} s", file=sys.stderr)
    if kinds != ["tensorrt"]:
        raise SystemExit(f"wanted one engine, the bundle runs {kinds}")
    return module


def others(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs that the build has not seen."""
    changed: tuple[Any, ...] = vary(args, torch.Generator().manual_seed(7))
    return changed


def to_cuda(value: Any) -> Any:
    """Tensors on the GPU."""
    return tree_map_only(torch.Tensor, lambda t: t.cuda(), value)


def cosine(wanted: Any, got: Any) -> float:
    """The smallest cosine of any two outputs."""
    pairs = zip(tree_leaves(wanted), tree_leaves(got), strict=True)
    return min(
        torch.nn.functional.cosine_similarity(
            a.double().flatten(), b.double().flatten(), dim=0
        ).item()
        for a, b in pairs
    )
