# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 at batch 1: the module with a CUDA graph beside the bare replay of the same engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from tests.acceptance.packaging import livened, packaged
from tests.acceptance.rows import ROWS
from tests.acceptance.runtime.bare import Bare, runners
from tests.acceptance.runtime.row import Row, Settings
from tests.acceptance.runtime.timing import Call, finished_us
from tests.acceptance.table import Bar
from trtpack_runtime import load

TITLE = "ResNet-18, batch 1, float16"
NAME = "resnet18/1"
SHAPE, DTYPE = (1, 3, 224, 224), torch.float16
MAX_COST = 1.05


def rows(settings: Settings) -> Iterator[Row]:
    """One row."""
    if not settings.wants(NAME):
        return
    if settings.device == "cpu":
        yield Row(NAME, notes=("CUDA graphs need a GPU.",))
        return
    yield _measured(_bundle(settings.folder), settings)


def _measured(bundle: Path, settings: Settings) -> Row:
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        x = torch.randn(SHAPE, device=settings.device, dtype=DTYPE)
        plain = load(bundle, device="cuda", strict=True, cuda_graphs="off")
        graph = load(bundle, device="cuda", strict=True, cuda_graphs="on")
        bare = Bare(runners(plain)[0], [x])
        replay = bare.captured()
        out = [torch.empty_like(bare.outputs[0])]
        calls: dict[str, Call] = {
            "replay": replay,
            "graph, stable": lambda: graph.run("forward", [x], out=out),
            "graph": lambda: graph(x),
            "enqueue": bare.enqueue,
            "module": lambda: plain(x),
        }
        for call in calls.values():
            for _ in range(5):
                call()
        stream.synchronize()
        if not torch.equal(bare.outputs[0], out[0]):
            raise SystemExit("the graph answers other numbers than the bare engine")
        rounds = 2 if settings.quick else 40
        us = finished_us(calls, stream.synchronize, rounds=rounds, repeats=40)
    return judged(us)


def judged(us: Mapping[str, float]) -> Row:
    """The row by its measured microseconds."""
    cost = us["graph"] / us["replay"]
    bar = Bar(
        f"{NAME}: a call of the module with a graph within 5 % of the bare replay",
        f"{(cost - 1) * 100:+.1f} %",
        cost <= MAX_COST,
    )
    figures = {f"{kind}, µs": value for kind, value in us.items()}
    note = (
        "Microseconds until the GPU is done, each call waited for, medians. `replay` and `enqueue` "
        "are bare; `graph` answers a new tensor, `graph, stable` writes to the caller's."
    )
    return Row(NAME, figures, (bar,), (note,))


def _bundle(folder: Path) -> Path:
    """The bundle of this machine's own, built once."""
    path = folder / "resnet18.tar"
    if not path.exists():
        row = next(row for row in ROWS if row.name == NAME)
        module, args = livened(row)
        packaged(module, args, path)
    return path
