# SPDX-License-Identifier: Apache-2.0
"""The frame of the runtime benchmark: rows outlive their process, what falls short is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.acceptance.runtime import PARTS, overhead, page, resnet, timing
from tests.acceptance.runtime.__main__ import main
from tests.acceptance.runtime.results import Part, Results
from tests.acceptance.runtime.row import Row, Settings, at_most
from tests.acceptance.table import Bar
from tests.runtime.gpu_double import Gpu, gpu_of
from tests.runtime.running import Trt, runner
from trtpack_runtime.device import facts
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.engines.tensorrt import can_build
from trtpack_runtime.errors import DeviceError

PAGE = Path(__file__).parents[1] / "docs/benchmarks/runtime.md"


def fast(name: str = "one") -> Row:
    return Row(name, {"call, µs": 12.345}, (at_most(f"{name}: call", 12.345, 15, "µs"),))


def whole(*rows: Row) -> Part:
    return Part("Overhead", {row.name: row for row in rows}, whole=True)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_there(name: str) -> None:
    part = import_module(f"tests.acceptance.runtime.{name}")
    assert part.TITLE
    assert callable(part.rows)


def test_the_script_says_what_it_can_do(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts/gpu_runtime_bench"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("--list").stdout.split() == list(PARTS)
    refused = run("--device", "cpu", "--write")
    assert refused.returncode == 2
    assert "the page is of whole runs on a GPU" in refused.stderr
    why_not = can_build(facts())
    if why_not is not None:  # else it would measure for minutes
        refused = run("--results", str(tmp_path / "out/runtime.json"))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"cannot measure here: {why_not}\n"
        assert not (tmp_path / "out").exists()


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A part with three rows that dies at the second as often as ``dies`` says."""

    def rows(settings: Settings) -> Iterator[Row]:
        for name in "abc":
            if settings.wants(name):
                if name == "b" and made.dies:
                    made.dies -= 1
                    raise RuntimeError("no GPU")
                yield fast(name)

    made = SimpleNamespace(TITLE="A toy", rows=rows, dies=1)
    monkeypatch.setitem(sys.modules, "tests.acceptance.runtime.toy", made)
    return made


@pytest.mark.usefixtures("part")
def test_rows_outlive_a_part_that_dies_and_are_not_measured_twice(tmp_path: Path) -> None:
    known, told, kept = Part(), tmp_path / "settings", tmp_path / "rows"

    def run() -> None:
        kept.unlink(missing_ok=True)
        settings = Settings("cpu", tmp_path, frozenset(known.rows))
        told.write_text(json.dumps(settings.to_json()))
        main("toy", told, kept)

    with pytest.raises(RuntimeError, match="no GPU"):
        run()
    known.take(kept.read_text().splitlines())
    assert (list(known.rows), known.whole) == (["a"], False)
    run()
    assert '"a"' not in kept.read_text()
    known.take(kept.read_text().splitlines())
    assert (list(known.rows), known.whole, known.title) == (["a", "b", "c"], True, "A toy")


def test_a_line_that_was_cut_off_is_left_out() -> None:
    part = Part()
    part.take([json.dumps(fast().to_json()), json.dumps(fast("two").to_json())[:20]])
    assert list(part.rows) == ["one"]
    assert not part.whole


def test_results_are_the_same_after_they_were_kept(tmp_path: Path) -> None:
    kept = Results({"GPU": "H200"}, {"overhead": whole(fast(), Row("two", notes=("why",)))})
    kept.write(tmp_path / "out" / "runtime.json")
    assert Results.read(tmp_path / "out" / "runtime.json") == kept
    assert Results.read(tmp_path / "nothing") == Results()


def test_what_falls_short_does_not_hold() -> None:
    assert whole(fast()).holds
    assert not whole(Row("slow", bars=(at_most("call", 15.1, 15, "µs"),))).holds
    assert not Part("Overhead", {"one": fast()}, whole=False).holds
    assert not Part("Overhead", {"one": fast()}, whole=True, error="died").holds


def test_a_part_for_a_terminal() -> None:
    slow = Row("two", {"call, µs": 20.0, "models": 3}, (Bar("all right", "2 of 3", False),))
    assert page.text(whole(fast(), slow)).splitlines() == [
        "Overhead",
        "     call, µs  models",
        "one  12.35",
        "two  20        3",
        "ok    one: call <= 15 µs: 12.35 µs",
        "FAIL  all right: 2 of 3",
    ]


def test_rows_of_other_figures_have_a_table_of_their_own_and_long_ones_are_turned() -> None:
    memory = Row("memory", {"calls": 20, "host, %": 0.5, "GPU, %": 0.25})
    assert page.tables(whole(fast(), memory, fast("two"))) == [
        [["", "call, µs"], ["one", "12.35"], ["two", "12.35"]],
        [["", "memory"], ["calls", "20"], ["host, %", "0.5"], ["GPU, %", "0.25"]],
    ]


def test_the_page_tells_what_was_measured_and_what_was_not() -> None:
    kept = Results({"GPU": "H200"}, {"overhead": whole(Row("one", {"n": 1}, notes=("Left: x.",)))})
    lines = page.markdown(kept, ("overhead", "resnet")).splitlines()
    assert "- GPU: H200" in lines
    assert lines[lines.index("## Overhead") + 2 :] == [
        "|  | n |",
        "| --- | --- |",
        "| one | 1 |",
        "",
        "Left: x.",
        "",
        "## resnet",
        "",
        "Not measured yet.",
    ]


@pytest.mark.skipif(not PAGE.exists(), reason="no GPU has measured it yet")
def test_the_page_is_written_from_the_stored_figures() -> None:
    kept = Results.read(PAGE.with_suffix(".json"))
    assert page.markdown(kept, PARTS) == PAGE.read_text(), "run scripts/gpu_runtime_bench --write"


# the parts: what they make of their measurements


def test_calls_are_timed_in_turns() -> None:
    now, order = [0.0], []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    calls = {"a": lambda: call("a", 1e-6), "b": lambda: call("b", 5e-6)}
    kwargs: Any = {"rounds": 2, "repeats": 3, "clock": lambda: now[0]}
    us = timing.enqueued_us(calls, lambda: call("wait", 1.0), **kwargs)
    assert us == pytest.approx({"a": 1.0, "b": 5.0}), "waiting is not part of it"
    assert order == [*["wait", *"aaa", "wait", *"bbb"] * 2, "wait"]
    us = timing.finished_us(calls, lambda: call("wait", 1.0), **kwargs)
    assert us == pytest.approx({"a": 1e6 + 1, "b": 1e6 + 5}), "waiting is part of it"


def test_a_profile_names_the_functions() -> None:
    assert "test_runtime_bench" in timing.where_time_goes(lambda: fast("x"), calls=3)


MEASURED = {
    "enqueue": 5.0,
    "runner": 8.0,
    "module": 20.0,
    "replay": 4.0,
    "graph, stable": 10.0,
    "graph, all moved": 16.0,
    "copy": 3.0,
    "Session": 15.0,
}


@pytest.mark.parametrize(
    ("slow", "failed"),
    [
        ({}, []),
        ({"module": 20.1}, ["1 input: module over bare <= 15 µs"]),
        ({"graph, stable": 10.1}, ["1 input: graph over bare <= 6 µs"]),
        (
            {"graph, all moved": 16.1},
            ["1 input: graph, all moved, less 2 copies, over bare <= 6 µs"],
        ),
        ({"Session": 15.1}, ["1 input: Session over bare <= 10 µs"]),
    ],
)
def test_what_a_call_may_cost(slow: dict[str, float], failed: list[str]) -> None:
    row = overhead.judged("1 input", MEASURED | slow, 1)
    assert [bar.text for bar in row.bars if not bar.holds] == failed


def test_without_a_session_its_demand_does_not_hold() -> None:
    without = {kind: us for kind, us in MEASURED.items() if kind != "Session"}
    row = overhead.judged("1 input", without, 1, "no cuda.bindings")
    assert [bar.found for bar in row.bars if not bar.holds] == ["no cuda.bindings"]


@pytest.mark.parametrize(("us", "holds"), [(54.9, True), (55.1, False)])
def test_what_a_hybrid_call_may_cost(us: float, holds: bool) -> None:
    row = overhead.judged_hybrid("three", {"enqueue": 15.0, "eager": 5.0, "module": us})
    assert [bar.holds for bar in row.bars] == [holds]


@pytest.mark.parametrize(("us", "holds"), [(104.9, True), (105.1, False)])
def test_what_a_graph_of_resnet_may_cost(us: float, holds: bool) -> None:
    (bar,) = resnet.judged({"replay": 100.0, "graph": us}).bars
    assert bar.holds == holds


def test_without_a_gpu_the_overhead_is_pythons(tmp_path: Path) -> None:
    settings = Settings("cpu", tmp_path, frozenset({"8 inputs, Python alone"}), quick=True)
    (row,) = overhead.rows(settings)
    assert row.figures["bare enqueue, µs"] < row.figures["runner, µs"]
    assert next(resnet.rows(settings)).notes == ("CUDA graphs need a GPU.",)


# the parts that need a GPU, on doubles of it: that they run, and compare right numbers


class Loaded:
    """A module of engines that double, with PyTorch between them."""

    def __init__(self, gpu: Gpu, names: str, engines: int, cuda_graphs: str) -> None:
        kind = EngineRunner if cuda_graphs == "off" else GraphRunner
        runs = [runner(Trt(gpu, names if i == 0 else "xy"), kind=kind) for i in range(engines)]
        self._runs = runs
        self._between = SimpleNamespace(kind="aten", run=lambda x: [torch.cumsum(x[0], 1)])

    def segments(self) -> list[Any]:
        made = [SimpleNamespace(kind="tensorrt", run=run) for run in self._runs]
        return [x for segment in made for x in (self._between, segment)][1:]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        (answer,) = self.run("forward", list(inputs))
        return answer

    def run(
        self, method: str, inputs: list[torch.Tensor], out: list[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        for segment in self.segments():
            inputs = segment.run(inputs)
        for place, answer in zip(out or (), inputs, strict=bool(out)):
            place.copy_(answer)
        return out or inputs


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Has the parts load engines of doubles: of these tensors, so many in a row."""
    gpu = gpu_of(monkeypatch)
    gpu.caller_on("the caller's own")
    stream = gpu.of(gpu.current(0))
    for name, double in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "default_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda: None,
        "CUDAGraph": gpu.graph,
        "graph": gpu.capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, double)
    monkeypatch.setattr(overhead, "SHAPE", (2, 3))
    monkeypatch.setattr(resnet, "SHAPE", (2, 3))
    monkeypatch.setattr(resnet, "DTYPE", torch.float32)
    monkeypatch.setattr(overhead, "_bundle", lambda *given, **more: Path("x.tar"))

    def session(*given: Any) -> Any:
        raise DeviceError("no cuda.bindings")

    monkeypatch.setattr(overhead, "_session", session)

    def choose(names: str, engines: int) -> None:
        for part in (overhead, resnet):
            monkeypatch.setattr(
                part,
                "load",
                lambda bundle, *, cuda_graphs, **more: Loaded(gpu, names, engines, cuda_graphs),
            )

    return choose


@pytest.mark.parametrize("count", [1, 2])
def test_a_tiny_engine_is_measured(
    loads: Callable[[str, int], None], count: int, tmp_path: Path
) -> None:
    loads("abcd"[:count] + "y", 1)
    settings = Settings("cpu", tmp_path, quick=True)
    row = overhead._tiny("tiny", count, settings)
    assert {"enqueue, µs", "graph, all moved, µs", "replay, finished, µs"} <= set(row.figures)
    assert [bar.found for bar in row.bars][-1] == "no cuda.bindings"


def test_a_hybrid_program_is_measured(loads: Callable[[str, int], None], tmp_path: Path) -> None:
    loads("xy", 2)
    row = overhead._hybrid("three", Settings("cpu", tmp_path, quick=True))
    assert {"enqueue, µs", "eager, µs", "module, µs", "graph, stable, µs"} == set(row.figures)
    loads("xy", 1)
    with pytest.raises(SystemExit, match="wanted engine, PyTorch, engine"):
        overhead._hybrid("three", Settings("cpu", tmp_path, quick=True))


def test_resnet_is_measured(loads: Callable[[str, int], None], tmp_path: Path) -> None:
    loads("xy", 1)
    row = resnet._measured(Path("x.tar"), Settings("cpu", tmp_path, quick=True))
    assert len(row.bars) == 1
    assert set(row.figures) >= {"replay, µs", "graph, µs"}
