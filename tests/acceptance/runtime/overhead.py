# SPDX-License-Identifier: Apache-2.0
"""What a call costs the host over the bare engine enqueue: same engine, same buffers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import trtpack
from tests.acceptance.runtime.bare import Bare, runners
from tests.acceptance.runtime.row import Figure, Row, Settings, at_most
from tests.acceptance.runtime.timing import Call, enqueued_us, finished_us, where_time_goes
from tests.acceptance.table import Bar
from trtpack_runtime import load
from trtpack_runtime.errors import TrtpackError

TITLE = "Overhead of a call over the bare enqueue"
SHAPE = (1, 64)
INPUTS = (1, 8)
SETS = 3
"""Sets of inputs that calls with memory that moves take in turn."""
WARM_S = 3.0
MODULE_US, GRAPH_US, SESSION_US, HYBRID_US = 15.0, 6.0, 10.0, 40.0


class Tiny(nn.Module):
    """As little as there can be, so that the host is what takes time."""

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """given: float32[1, 64] each."""
        total = given[0]
        for other in given[1:]:
            total = total + other
        return total * 2.0


class Hybrid(nn.Module):
    """An engine, an operation that is kept in PyTorch, an engine."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: float32[1, 64]."""
        return torch.cumsum(x * 2.0, 1) * 2.0


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each engine; on the CPU what Python alone adds."""
    if settings.device == "cpu":
        yield from _of_python(settings)
        return
    for count in INPUTS:
        name = f"{count} input{'s'[: count > 1]}"
        if settings.wants(name):
            yield _tiny(name, count, settings)
    if settings.wants("three segments"):
        yield _hybrid("three segments", settings)


def judged(name: str, us: Mapping[str, float], inputs: int, no_session: str = "") -> Row:
    """The row of a tiny engine by its measured microseconds; ``no_session`` says why there are none
    of a session."""
    moved = inputs + 1  # the answer too is copied, out of the graph
    all_moved = us["graph, all moved"] - us["replay"] - moved * us["copy"]
    over = [
        ("module", us["module"] - us["enqueue"], MODULE_US),
        ("graph", us["graph, stable"] - us["replay"], GRAPH_US),
        (f"graph, all moved, less {moved} copies,", all_moved, GRAPH_US),
    ]
    bars = [at_most(f"{name}: {what} over bare", found, limit, "µs") for what, found, limit in over]
    if no_session:
        bars.append(Bar(f"{name}: Session over bare <= {SESSION_US:g} µs", no_session, False))
    else:
        found = us["Session"] - us["enqueue"]
        bars.append(at_most(f"{name}: Session over bare", found, SESSION_US, "µs"))
    return Row(name, _figures(us), tuple(bars), (f"Microseconds until a call returns; {ABOUT}",))


ABOUT = (
    "`enqueue` and `replay` are bare: one context, or its graph, and addresses told once. `module` "
    "answers new tensors, `graph, stable` writes to the caller's, `graph, all moved` reads and "
    "answers other memory at each call. `Session` works on tensors of the GPU and on the caller's "
    "stream. `copy` is PyTorch's copy of one such tensor."
)


def judged_hybrid(name: str, us: Mapping[str, float]) -> Row:
    """The row of the hybrid program."""
    over = us["module"] - us["enqueue"]
    bar = at_most(f"{name}: module over its engines' bare enqueues", over, HYBRID_US, "µs")
    note = (
        f"{name}: `enqueue` is that of both engines, `eager` the operation between them called by "
        "itself, which the module's time has in it."
    )
    return Row(name, _figures(us), (bar,), (note,))


def _figures(us: Mapping[str, float]) -> dict[str, Figure]:
    return {f"{kind}, µs": value for kind, value in us.items()}


def _tiny(name: str, count: int, settings: Settings) -> Row:
    bundle = _bundle(settings, f"tiny{count}.tar", Tiny(), count)
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        sets = [
            [torch.randn(SHAPE, device=settings.device) for _ in range(count)] for _ in range(SETS)
        ]
        inputs = sets[0]
        plain, graph = _loaded(bundle, "off"), _loaded(bundle, "on")
        runner, of_engine = runners(plain)[0], runners(graph)[0]
        bare, replayed = Bare(runner, inputs), Bare(runner, inputs)
        out = [torch.empty_like(bare.outputs[0])]
        turns = _turns(sets)
        calls: dict[str, Call] = {
            "enqueue": bare.on(stream),
            "runner": lambda: runner(inputs),
            "module": lambda: plain(*inputs),
            "replay": replayed.captured(),
            "graph, stable": lambda: graph.run("forward", inputs, out=out),
            "engine's graph, stable": lambda: of_engine.run_into(inputs, out),
            "graph, all moved": lambda: moving(*next(turns)),
            "copy": lambda: out[0].copy_(inputs[0]),
        }
        no_session = ""
        try:
            calls["Session"] = _session(bundle, stream, inputs)
        except TrtpackError as error:
            no_session = error.message
        moving = _loaded(bundle, "on")
        bare.enqueue()
        _compare(name, Tiny()(*inputs), bare.outputs[0], calls["module"]())
        us = _measured(calls, settings)
        with torch.cuda.stream(torch.cuda.default_stream()):
            us |= _measured({"module, default stream": calls["module"]}, settings)
        us |= {
            f"{kind}, finished": value
            for kind, value in finished_us(
                {kind: calls[kind] for kind in ("enqueue", "module", "replay", "graph, stable")},
                stream.synchronize,
                rounds=3 if settings.quick else 30,
            ).items()
        }
        shown = [kind for kind in ("module", "graph, stable", "Session") if kind in calls]
        _profiled(name, settings, {kind: calls[kind] for kind in shown})
    return judged(name, us, count, no_session)


def _hybrid(name: str, settings: Settings) -> Row:
    bundle = _bundle(settings, "hybrid.tar", Hybrid(), 1, torch_ops=("aten.cumsum",))
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        x = torch.randn(SHAPE, device=settings.device)
        plain, graph = _loaded(bundle, "off"), _loaded(bundle, "on")
        kinds = [segment.kind for segment in plain.segments()]
        if len(kinds) != 3 or len(runners(plain)) != 2:
            raise SystemExit(f"wanted engine, PyTorch, engine; the bundle runs {kinds}")
        first = Bare(runners(plain)[0], [x])
        between = torch.cumsum(first.outputs[0], 1)
        second = Bare(runners(plain)[1], [between])
        enqueue = first.on(stream), second.on(stream)
        out = [torch.empty_like(second.outputs[0])]
        calls: dict[str, Any] = {
            "enqueue": lambda: (enqueue[0](), enqueue[1]()),
            "eager": lambda: torch.cumsum(first.outputs[0], 1),
            "module": lambda: plain(x),
            "graph, stable": lambda: graph.run("forward", [x], out=out),
        }
        _compare(name, Hybrid()(x), calls["module"](), calls["graph, stable"]()[0])
        us = _measured(calls, settings)
        _profiled(name, settings, {k: calls[k] for k in ("module", "graph, stable")})
    return judged_hybrid(name, us)


def _of_python(settings: Settings) -> Iterator[Row]:
    from tests.benchmarks.call_cost import costs

    for count in INPUTS:
        name = f"{count} input{'s'[: count > 1]}, Python alone"
        if settings.wants(name):
            note = "TensorRT and CUDA are doubles here that cost nothing; see call_cost.py."
            yield Row(name, _figures(costs(count, 100 if settings.quick else 500)), notes=(note,))


def _measured(calls: Mapping[str, Call], settings: Settings) -> dict[str, float]:
    for call in calls.values():
        for _ in range(8):  # graphs are there from the second call on, moved memory is known later
            call()
    torch.cuda.synchronize()
    rounds, warm = (3, 0.0) if settings.quick else (60, WARM_S)
    return enqueued_us(calls, torch.cuda.synchronize, rounds=rounds, warm_s=warm)


def _profiled(name: str, settings: Settings, calls: Mapping[str, Call]) -> None:
    if settings.profile:
        for kind, call in calls.items():
            print(f"--- {name}, {kind} ---\n{where_time_goes(call)}", file=sys.stdout, flush=True)


def _turns(sets: Sequence[Sequence[torch.Tensor]]) -> Iterator[Sequence[torch.Tensor]]:
    while True:
        yield from sets


def _session(bundle: Path, stream: Any, inputs: Sequence[torch.Tensor]) -> Call:
    from trtpack_runtime import Session

    session = Session(bundle, stream=stream.cuda_stream, cuda_graphs="off")
    given = list(inputs)
    return lambda: session.run(given, copy=False)


def _loaded(bundle: Path, cuda_graphs: Any) -> Any:
    return load(bundle, device="cuda", strict=True, cuda_graphs=cuda_graphs)


def _compare(name: str, wanted: torch.Tensor, *answers: Any) -> None:
    """All compute the same, before anything is measured."""
    for answer in answers:
        if not torch.allclose(wanted, answer, rtol=1e-3, atol=1e-3):
            raise SystemExit(f"{name}: wrong numbers")


def _bundle(
    settings: Settings, name: str, module: nn.Module, count: int, torch_ops: tuple[str, ...] = ()
) -> Path:
    """A bundle of this machine's own, built once."""
    path = settings.folder / name
    if not path.exists():
        options = trtpack.Options(
            targets=("native",), output=path, strict=not torch_ops, torch_ops=torch_ops,
            min_block_size=1,
        )  # fmt: skip
        trtpack.build(
            (module.eval(), tuple(torch.randn(SHAPE) for _ in range(count))), options=options
        )
    return path
