# SPDX-License-Identifier: Apache-2.0
"""A long run: calls of mixed shapes from several threads, by the module and by pools."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import trtpack
from tests.acceptance.runtime.row import Figure, Row, Settings, at_most
from tests.acceptance.runtime.soaking import (
    Ask,
    Sample,
    Tally,
    call_by_pool,
    call_directly,
    share_one_arena,
)
from tests.acceptance.table import Bar
from trtpack.inputs import parse_inputs
from trtpack_runtime import Pool, load
from trtpack_runtime.errors import DeviceError

TITLE = "Soak"
CALLS = {"cuda": 100_000, "cpu": 10_000}
THREADS, WORKERS, QUEUE, CALLERS = 4, 4, 4, 12
MAX_CHANGE_PERCENT = 1.0
SIZES = ((1, 32), (2, 48), (3, 32), (4, 64), (5, 40), (8, 32), (7, 64), (1, 64))
MIB = 1 << 20


class Mixed(nn.Module):
    """Convolutions, a cumulative sum that stays in PyTorch where asked for, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """x: float32[batch, 3, side, side]."""
        features = self.stem(x).mean((2, 3))
        return {"logits": self.head(torch.cumsum(features, 1)), "features": features}


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each way of calling."""
    share_one_arena()
    torch.set_num_threads(1)
    device = torch.device(settings.device)
    total = CALLS[settings.device] // (10 if settings.quick else 1)
    samples = _samples(device)
    for name, by_pool in (("module, 4 threads", False), ("pool, 4 workers", True)):
        if settings.wants(name):
            module = load(_bundle(settings, hybrid=True), device=device)
            tally = Tally(total)
            if not by_pool:
                seconds = call_directly(module, samples, tally, device, THREADS)
            else:
                seconds = _by_pool(module, samples, tally, device)
            kinds = [segment.kind for segment in module.segments()]
            yield _row(name, tally, seconds, f"{name}: the segments ran by {', '.join(kinds)}.")
    name = "pool of sessions, 4 workers"
    if settings.wants(name):
        if device.type != "cuda":
            yield Row(name, notes=("Sessions need a GPU.",))
            return
        from trtpack_runtime import Session

        try:
            session = Session(_bundle(settings, hybrid=False))
        except DeviceError as error:  # such as no binding of CUDA for Python
            yield Row(name, bars=(Bar(f"{name}: runs", error.message, False),))
            return
        with session:
            tally = Tally(total)
            seconds = _by_pool(session, samples, tally, device, lambda s: (_arrays(s.inputs),))
        yield _row(name, tally, seconds, f"{name}: one TensorRT engine, arrays in and out.")


def _by_pool(
    model: Any,
    samples: Sequence[Sample],
    tally: Tally,
    device: torch.device,
    ask: Ask = Sample.fresh,
) -> float:
    """Calls by a pool, which leaves neither threads nor requests behind."""
    like = samples[0].inputs[0]
    wrong = ((like[0],), (like.repeat(99, 1, 1, 1),), (like.to(torch.complex64),), ())
    malformed = [ask(Sample(values, ())) for values in wrong]
    with Pool(model, WORKERS, QUEUE) as pool:
        seconds = call_by_pool(pool, samples, malformed, tally, device, CALLERS, ask)
    left = [t.name for t in threading.enumerate() if t.name.startswith("trtpack-pool")]
    if left or pool.waiting:
        tally.problems.append(f"left behind: {left}, {pool.waiting} requests")
    return seconds


def _row(name: str, tally: Tally, seconds: float, note: str) -> Row:
    gc.collect()
    rss, gpu = tally.medians(1), tally.medians(2)
    figures: dict[str, Figure] = {
        "calls": tally.kinds.total(),
        "calls per s": tally.kinds.total() / seconds,
        **{kind: tally.kinds[kind] for kind in sorted(tally.kinds)},
        "wrong": len(tally.problems),
        "memory, MiB": rss[-1] / MIB if rss else 0.0,
        "memory change, %": tally.change_percent(1),
    }
    bars = [
        Bar(f"{name}: no wrong answer", _found(tally), not tally.problems),
        _flat(f"{name}: memory", tally.change_percent(1)),
    ]
    if gpu and gpu[-1]:
        figures["GPU memory, MiB"] = gpu[-1] / MIB
        figures["GPU memory change, %"] = tally.change_percent(2)
        bars.append(_flat(f"{name}: GPU memory", tally.change_percent(2)))
    return Row(name, figures, tuple(bars), (note,))


def _flat(what: str, change: float) -> Bar:
    return at_most(
        f"{what} changes after a fifth of the calls", abs(change), MAX_CHANGE_PERCENT, "%"
    )


def _found(tally: Tally) -> str:
    if tally.problems:
        return f"{len(tally.problems)} of {tally.kinds.total()}, {tally.problems[0]}"
    return f"{tally.kinds['compared']} compared"


def _samples(device: torch.device) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    model, samples = _model(), []
    with torch.no_grad():
        for batch, side in SIZES:
            x = torch.randn(batch, 3, side, side, generator=generator)
            answer = model(x)
            samples.append(Sample((x.to(device),), tuple(answer.values())))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return samples


def _model() -> Mixed:
    torch.manual_seed(0)
    return Mixed().eval().requires_grad_(False)


def _arrays(values: tuple[torch.Tensor, ...]) -> list[Any]:
    return [value.cpu().numpy() for value in values]


def _bundle(settings: Settings, *, hybrid: bool) -> Path:
    """The model for this machine, built once: with a segment in PyTorch, or wholly an engine."""
    path = settings.folder / ("hybrid.tar" if hybrid else "whole.tar")
    if not path.exists():
        options = trtpack.Options(
            targets=("native" if settings.device == "cuda" else "cpu",),
            output=path,
            inputs=parse_inputs(["x=1/4/8x3x[side=32/48/64]x[side=32/48/64]"]),
            torch_ops=("aten.cumsum",) if hybrid and settings.device == "cuda" else (),
            min_block_size=1,
            engine="reference" if settings.device == "cpu" else None,
        )
        trtpack.build((_model(), (torch.randn(4, 3, 48, 48),)), options=options)
    return path
