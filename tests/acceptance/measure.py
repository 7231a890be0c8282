# SPDX-License-Identifier: Apache-2.0
"""Builds or measures one row: ``python -m tests.acceptance.measure prepare|measure ROW FOLDER``.

``prepare`` packages the row's bundles into the folder and lets ``torch.compile`` fill its cache, so
that rows can be prepared side by side; ``measure`` needs the GPU for itself. The last line of
standard output is the result as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.acceptance import precisions
from tests.acceptance.packaging import (
    TURNS,
    cosine,
    livened,
    loaded,
    others,
    packaged,
    to_cuda,
)
from tests.acceptance.rows import ROWS, Row
from tests.acceptance.side_by_side import side_by_side
from trtpack.inputs import parse_inputs
from trtpack_runtime.clocks import DeviceClock
from trtpack_runtime.engine_store import EngineStore

DYNAMIC_BATCHES = (1, 3, 32)
OPT_BATCH = 8


def main() -> None:
    """Does what the command line names."""
    verb, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    row = next(row for row in ROWS if row.name == name)
    torch.backends.cudnn.benchmark = True
    warnings.simplefilter("ignore")
    verbs = {"prepare": prepare, "measure": measured}
    print(json.dumps(verbs[verb](row, folder)))


def prepare(row: Row, folder: Path) -> dict[str, Any]:
    """Packages the row's bundles; answers the seconds its engines took."""
    module, args = livened(row)
    match row.kind:
        case "dynamic":
            ranged = f"x=1/{OPT_BATCH}/32x{'x'.join(map(str, args[0].shape[1:]))}:float16"
            inputs = parse_inputs([ranged])
            seconds = packaged(module, args, folder / "dynamic.tar", inputs=inputs)
            return {"build_seconds": seconds + packaged(module, args, folder / "static.tar")}
        case "caches":
            return {}
        case "int8":
            return {"build_seconds": precisions.prepare_int8(row, folder)}
        case "sparse":
            return {"build_seconds": precisions.prepare_sparse(row, folder)}
    seconds = packaged(module, args, folder / "bundle.tar")
    with torch.inference_mode():
        reduced_overhead(module.cuda(), to_cuda(args))
    return {"build_seconds": seconds}


def measured(row: Row, folder: Path) -> dict[str, Any]:
    """The row's figures."""
    kinds = {
        "latency": latency,
        "dynamic": dynamic,
        "caches": caches,
        "int8": precisions.int8,
        "sparse": precisions.sparse,
    }
    return kinds[row.kind](row, folder)


def latency(row: Row, folder: Path) -> dict[str, Any]:
    """Cosine with eager, and the latency of a call beside eager and compiled."""
    module, args = livened(row)
    engine = loaded(folder / "bundle.tar")
    graph = loaded(folder / "bundle.tar", cuda_graphs=True)
    on_gpu, inputs = module.cuda(), to_cuda(others(args))
    with torch.inference_mode():
        wanted = on_gpu(*inputs)
        for _ in range(3):  # the graph is captured at the second call
            replayed = graph(*inputs)
        close = min(cosine(wanted, engine(*inputs)), cosine(wanted, replayed))
        calls: dict[str, Callable[[], Any]] = {
            "trtpack": lambda: engine(*inputs),
            "cuda_graph": lambda: graph(*inputs),
            "eager": lambda: on_gpu(*inputs),
            "reduce_overhead": reduced_overhead(on_gpu, inputs),
        }
        if row.images:
            calls["channels_last"] = channels_last(row, module, inputs)
        return {"cosine": close, "latency_ms": side_by_side(calls, DeviceClock(), **TURNS)}


def dynamic(row: Row, folder: Path) -> dict[str, Any]:
    """One engine for batch 1 to 32 beside one made for the batch it is tuned for."""
    module, args = livened(row)
    engine, static = loaded(folder / "dynamic.tar"), loaded(folder / "static.tar")
    on_gpu = module.cuda()
    cosines = {}
    with torch.inference_mode():
        for batch in DYNAMIC_BATCHES:
            inputs = (torch.randn(batch, *args[0].shape[1:], device="cuda", dtype=torch.float16),)
            cosines[str(batch)] = cosine(on_gpu(*inputs), engine(*inputs))
        inputs = to_cuda(args)
        times = side_by_side(
            {"dynamic": lambda: engine(*inputs), "static": lambda: static(*inputs)},
            DeviceClock(),
            **TURNS,
        )
    return {"cosines": cosines, "latency_ms": times}


def caches(row: Row, folder: Path) -> dict[str, Any]:
    """Seconds of a build with no cache, with tactics only, and with the engine itself cached.

    They are the engine's, and those of the whole command, which starts PyTorch, loads and captures
    the model, and proves the bundle too.
    """
    seconds, whole = {}, {}
    for cached in ("none", "tactics", "engine"):
        if cached == "tactics":
            EngineStore().prune(0)
        began = time.perf_counter()
        seconds[cached] = _by_command(row, folder / f"{cached}.tar")
        whole[cached] = time.perf_counter() - began
    return {"build_seconds": seconds, "whole_seconds": whole}


def _by_command(row: Row, bundle: Path) -> float:
    """``trtpack build`` in a process of its own; answers the seconds that its engine took."""
    report = bundle.with_suffix(".json")
    asked = f"torchvision:{row.name.split()[0]} -t native --dtype float16 --liven --strict --quiet"
    more = ["-i", f"x={row.shape}:float16", "-o", str(bundle), "--report", str(report)]
    program = "from trtpack.cli.build import build; build()"
    subprocess.run([sys.executable, "-c", program, *asked.split(), *more], check=True)
    (target,) = json.loads(report.read_text())["targets"]
    (engine,) = target["engines"]
    return float(engine["seconds"])


def reduced_overhead(module: torch.nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """``torch.compile(mode="reduce-overhead")``: CUDA graphs over Inductor's kernels."""
    compiled = torch.compile(module, mode="reduce-overhead")
    for _ in range(3):
        compiled(*inputs)
    return lambda: compiled(*inputs)


def channels_last(row: Row, module: torch.nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """Eager in the layout that tensor cores prefer."""
    again, _ = row.make()
    again.eval().requires_grad_(False).half().load_state_dict(module.state_dict())
    again.cuda().to(memory_format=torch.channels_last)
    ordered = tuple(value.contiguous(memory_format=torch.channels_last) for value in inputs)
    return lambda: again(*ordered)


if __name__ == "__main__":
    main()
