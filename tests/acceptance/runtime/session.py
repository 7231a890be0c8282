# SPDX-License-Identifier: Apache-2.0
"""``Session`` beside ``BundleModule``: the same numbers, memory that stays, and what a process
without PyTorch takes. Needs cuda-bindings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import trtpack
from tests.acceptance.runtime.row import Row, Settings, at_most
from tests.acceptance.runtime.soaking import Tally
from tests.acceptance.runtime.timing import Call, finished_us
from tests.acceptance.table import Bar
from trtpack.inputs import parse_inputs
from trtpack_runtime import Session, load
from trtpack_runtime.errors import InputMismatchError

TITLE = "Session, without PyTorch"
CALLS = 12
"""Calls compared of each model and way: the first, the captured, and replays."""
FLAT_PERCENT = 1.0
EQUAL = 1e-6
CHILD = """
import json, sys, time
begin = time.perf_counter()
if {without!r}:
    sys.modules["torch"] = None
import numpy
x = numpy.load({inputs!r})
if {without!r}:
    from trtpack_runtime import Session
    answer = Session({bundle!r}).run([x])
else:
    import torch
    from trtpack_runtime import load
    module = load({bundle!r}, device={device!r}, strict={device!r} == "cuda")
    answer = [y.cpu() for y in module(torch.from_numpy(x).to({device!r}))]
seconds = time.perf_counter() - begin
with open("/proc/self/status") as status:  # getrusage has the parent's memory in it
    (peak,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
free = 0
if {device!r} == "cuda":
    from trtpack_runtime.session.cuda import Cuda, api
    free = Cuda(api(), 0).free_bytes()
print(json.dumps({{"s": seconds, "host": peak, "free": free}}))
"""


class Conv(nn.Module):
    """A small network of images of any batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: float32[b, 3, 64, 64]."""
        y = self.body(x)
        return y, y.mean((2, 3))


class Embedding(nn.Module):
    """Integers in, integers out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(100, 32), nn.Linear(32, 7)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ids: int64[b, 12]."""
        logits = self.head(self.table(ids))
        return logits, logits.argmax(-1)


class Running(nn.Module):
    """A mean that lasts from call to call."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: float32[4, 64]."""
        self.mean.copy_(self.mean * 0.9 + x * 0.1)
        return torch.tanh(self.mean * 2.0)


@dataclass(frozen=True)
class Model:
    """A model, its example, its ranges, and inputs to call it with."""

    module: Callable[[], nn.Module]
    ranges: str
    given: Callable[[int], torch.Tensor]


def _images(i: int) -> torch.Tensor:
    return torch.randn(1 + i % 4, 3, 64, 64, generator=torch.Generator().manual_seed(i))


def _ids(i: int) -> torch.Tensor:
    return torch.randint(0, 100, (1 + i % 4, 12), generator=torch.Generator().manual_seed(i))


def _rows_of_state(i: int) -> torch.Tensor:
    return torch.randn(4, 64, generator=torch.Generator().manual_seed(i))


MODELS: Mapping[str, Model] = {
    "images of open batch": Model(Conv, "x=1/2/4x3x64x64", _images),
    "integers": Model(Embedding, "ids=1/2/4x12", _ids),
    "state": Model(Running, "", _rows_of_state),
}


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each model, then memory and processes."""
    if settings.device == "cpu":
        yield Row("every row", notes=("A session needs a GPU.",))
        return
    for name, model in MODELS.items():
        if settings.wants(name):
            yield _same(name, model, settings)
    first = next(iter(MODELS))
    bundle = _bundle(first, MODELS[first], settings)
    if settings.wants("numpy in and out"):
        yield _of_arrays("numpy in and out", bundle, settings)
    if settings.wants("memory"):
        yield _memory("memory", bundle, settings)
    if settings.wants("a process"):
        yield _process("a process", bundle, settings)


def agreed(name: str, errors: Mapping[str, float], smoke: bool) -> Row:
    """The row of a model: the largest error relative to ``BundleModule``'s answers by way."""
    figures = {f"{way}, error": error for way, error in errors.items()}
    bars = [
        Bar(f"{name}, {way}: as BundleModule", f"{error:.1e}", error <= EQUAL)
        for way, error in errors.items()
    ]
    bars.append(Bar(f"{name}: golden samples", "right" if smoke else "wrong", smoke))
    return Row(name, figures, tuple(bars), (f"Each way is {CALLS} calls.",))


def flat(name: str, tally: Tally) -> Row:
    """The row of memory over many calls of mixed shapes."""
    host, gpu = (tally.change_percent(column) for column in (1, 2))
    bars = tuple(
        Bar(f"{name} of the {what} stays", f"{change:+.2f} %", abs(change) <= FLAT_PERCENT)
        for what, change in (("host", host), ("GPU", gpu))
    )
    return Row(name, {"calls": tally.total, "host, %": host, "GPU, %": gpu}, bars)


def processes(name: str, without: Mapping[str, float], beside: Mapping[str, float]) -> Row:
    """The row of a process that opens a bundle and answers once, without torch and with it."""
    figures: dict[str, Any] = {}
    for who, found in (("Session", without), ("module", beside)):
        figures[f"{who}, s"] = found["s"]
        figures[f"{who}, host MB"] = found["host"] / 1e6
        figures[f"{who}, GPU MB"] = found["gpu"] / 1e6
    bars = tuple(
        Bar(
            f"{name} without PyTorch takes less {what}",
            f"{without[key] * scale:.3g} to {beside[key] * scale:.3g} {unit}",
            without[key] < beside[key],
        )
        for key, what, scale, unit in (
            ("s", "time", 1, "s"),
            ("host", "memory of the host", 1e-6, "MB"),
            ("gpu", "GPU memory", 1e-6, "MB"),
        )
    )
    return Row(name, figures, bars, ("Until the first answer, imports included.",))


def error(got: Sequence[Any], want: Sequence[torch.Tensor]) -> float:
    """The largest relative L2 error of a call's outputs; infinite where a type differs."""
    worst = 0.0
    for array, tensor in zip(got, want, strict=True):
        wanted = tensor.cpu().numpy()
        if array.dtype != wanted.dtype or array.shape != wanted.shape:
            return float("inf")
        size = float(numpy.linalg.norm(wanted.astype("f8"))) or 1.0
        worst = max(worst, float(numpy.linalg.norm(array.astype("f8") - wanted)) / size)
    return worst


def _same(name: str, model: Model, settings: Settings) -> Row:
    bundle = _bundle(name, model, settings)
    module = load(bundle, device="cuda", strict=True)
    given = [model.given(i) for i in range(CALLS)]
    wanted = [_leaves(module(x.cuda())) for x in given]
    errors = {}
    with Session(bundle, cuda_graphs="off") as session:
        smoke = session.smoke().passed
        for way, call in _ways(session).items():
            session.reset()
            errors[way] = max(error(call(x), w) for x, w in zip(given, wanted, strict=True))
    with Session(bundle, cuda_graphs="on") as session:
        for way, call in _ways(session).items():
            session.reset()
            found = [error(call(x), w) for x, w in zip(given, wanted, strict=True)]
            errors[f"{way}, graph"] = max(found)
        session.reset()
        twin = session.twin()
        futures = [twin.run_async([x.numpy()]) for x in given]
        answers = [list(future.result().values()) for future in futures]
        errors["async"] = max(error(a, w) for a, w in zip(answers, wanted, strict=True))
        twin.close()
    return agreed(name, errors, smoke)


def _ways(session: Session) -> dict[str, Callable[[torch.Tensor], list[Any]]]:
    """How a call may be made; every way answers arrays of the host."""

    def on_gpu(x: torch.Tensor) -> list[Any]:
        try:
            outputs = session.run([x.cuda()], copy=False)
        except InputMismatchError:  # TensorRT 8 has no 64-bit integers
            outputs = session.run([x.int().cuda()], copy=False)
        taken = [torch.from_dlpack(value).clone() for value in outputs.values()]
        wide = [value.long() if value.dtype == torch.int32 else value for value in taken]
        return [value.cpu().numpy() for value in wide]

    return {
        "numpy": lambda x: list(session.run([x.numpy()]).values()),
        "GPU": on_gpu,
        "torch on the host": lambda x: list(session.run([x]).values()),
    }


def _of_arrays(name: str, bundle: Path, settings: Settings) -> Row:
    module, x = load(bundle, device="cuda", strict=True), _images(1).numpy()
    with Session(bundle, cuda_graphs="off") as plain, Session(bundle) as graph:
        calls: dict[str, Call] = {
            "Session": lambda: plain.run([x]),
            "Session, graph": lambda: graph.run([x]),
            "module": lambda: [y.cpu() for y in _leaves(module(torch.from_numpy(x).cuda()))],
        }
        for call in calls.values():
            for _ in range(8):
                call()
        us = finished_us(calls, torch.cuda.synchronize, rounds=3 if settings.quick else 30)
    bar = at_most(f"{name}: Session beside the module", us["Session"] / us["module"], 1.0, "times")
    note = "Microseconds from arrays of the host to arrays of the host, medians."
    return Row(name, {f"{kind}, µs": value for kind, value in us.items()}, (bar,), (note,))


def _memory(name: str, bundle: Path, settings: Settings) -> Row:
    total = 500 if settings.quick else 20_000
    tally, device = Tally(total), torch.device("cuda")
    arrays = [_images(i).numpy() for i in range(8)]
    on_gpu = [torch.from_numpy(array).cuda() for array in arrays]
    with Session(bundle, shapes=3) as session:  # one shape too few: plans come and go
        for i in range(total):
            x = arrays[i % 8] if i % 3 else on_gpu[i % 8]
            if i % 5:
                session.run([x])
            else:
                session.run_async([x])
            tally.count("right")
            if i % (total // 200) == 0:
                tally.read(device)
    return flat(name, tally)


def _process(name: str, bundle: Path, settings: Settings) -> Row:
    inputs = settings.folder / "x.npy"
    numpy.save(inputs, _images(1).numpy())
    found = []
    for without in (True, False):
        free, _ = torch.cuda.mem_get_info()
        told = child(bundle, inputs, without=without)
        found.append({**told, "gpu": free - told["free"]})
    return processes(name, *found)


def child(bundle: Path, inputs: Path, *, without: bool, device: str = "cuda") -> dict[str, float]:
    """What a process takes that opens a bundle and answers once: seconds, the most memory of the
    host, and the GPU's memory that is free meanwhile."""
    script = CHILD.format(without=without, inputs=str(inputs), bundle=str(bundle), device=device)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"a process: {done.stderr.strip().splitlines()[-1]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _leaves(answer: Any) -> list[torch.Tensor]:
    """The tensors of a call's answer, copied: the next call may write over them."""
    values = answer if isinstance(answer, tuple) else (answer,)
    return [value.clone() for value in values]


def _bundle(name: str, model: Model, settings: Settings) -> Path:
    """A bundle of this machine's own, built once."""
    path = settings.folder / f"{name.replace(' ', '_')}.tar"
    if not path.exists():
        options = trtpack.Options(
            targets=("native",),
            output=path,
            inputs=parse_inputs([model.ranges] if model.ranges else []),
            strict=True,
            min_block_size=1,
        )
        trtpack.build((model.module().eval(), (model.given(1),)), options=options)
    return path
