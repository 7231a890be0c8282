# SPDX-License-Identifier: Apache-2.0
"""The cells of a matrix on their way, with processes and a farm that do as they are told."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import without_gpu
from tests.runtime import deferred
from trtpack.cli.matrix import CommandFlags
from trtpack.errors import ConfigError
from trtpack.farm import MatrixReport, Settings, View, build_matrix, cells
from trtpack.farm.processes import Request, Said
from trtpack.farm.report import CellResult
from trtpack.farm.targets import FarmWorker, Fit
from trtpack.matrix import plan_cells, read_matrix
from trtpack_runtime import store_folder
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.engines import tensorrt
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.farm import engines as tasks
from trtpack_runtime.tactics import TacticKey, TacticStore

RELEASE = "10.13.3.9"
WORKER = deferred.h200(tensorrt=RELEASE)
MATRIX = """
[models.a]
model = "models.py:a"
[models.b]
model = "models.py:b"
[targets.h200-sxm]
target = "h200-sxm@tensorrt-10.13"
"""

ALONE = MATRIX.replace('[models.b]\nmodel = "models.py:b"\n', "")
OTHER = "[targets.orin]\nbuild = { engine = 'reference' }\n"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without a GPU; stores of its own; what builds on an H200 is played."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", ())
    monkeypatch.setitem(deferred.KINDS, "h200", ("tensorrt", "9.0", RELEASE))
    monkeypatch.setattr(cells, "facts", lambda: without_gpu(tensorrt_rtx=None))
    monkeypatch.setattr(tasks, "facts", lambda: WORKER)
    monkeypatch.setattr(tensorrt, "build", played)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").touch()


def played(network: Any, weights: Any, plan: Path, **given: Any) -> tensorrt.Built:
    given["on_progress"]({"phase": "Building", "parent": None, "step": 1, "steps": 4})
    plan.write_bytes(b"plan of " + network.digest().encode())
    record = tensorrt.record_of(given["facts"]["tensorrt"], given["options"], given["facts"])
    return tensorrt.Built(record, 1.5, b"tactics", None, (), None, {})


@dataclass
class Crew:
    """Plays the processes: each builds at once, unless ``deaths`` or ``errors`` has its cell."""

    size: int = 1
    deaths: dict[str, int] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    started: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    most_at_once: int = 0

    def __call__(self, size: int) -> Crew:
        self.size = size
        return self

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def is_free(self) -> bool:
        return len(self.waiting) < self.size

    def start(self, request: Request) -> None:
        self.started.append(request)
        self.waiting.append(request)
        self.most_at_once = max(self.most_at_once, len(self.waiting))

    def said(self, timeout_s: float) -> Iterator[Said]:
        done, self.waiting = self.waiting, []
        for request in done:
            request.log.write_text("what was printed")
            if self.deaths.get(request.cell, 0):
                self.deaths[request.cell] -= 1
                yield Said(request.cell, {"died": "by SIGKILL"})
            elif request.cell in self.errors:
                yield Said(request.cell, {"error": self.errors[request.cell]})
            else:
                deferred.write(request.options.output, variants=("h200",))
                yield Said(request.cell, {"report": _report(request.options.output)})


def _report(path: Path) -> dict[str, Any]:
    plain = {"kind": "tensorrt", "nbytes": 0, "seconds": 0.0, "cached": False, "age_seconds": 0.0}
    engines = [{"segment": s, **plain, "deferred": "left to it"} for s in deferred.SEGMENTS]
    return {"targets": [{"engines": engines}], "bundle": {"path": str(path), "nbytes": 1}}


@dataclass
class Task:
    """Plays one that is done at once, or lost."""

    status: str
    answer: Mapping[str, Any] = field(default_factory=dict)

    def forget(self) -> None:
        self.status = "cancelled"


@dataclass
class Cluster:
    """Plays a farm of one worker, which is an H200; ``lost`` tasks never end."""

    there: tuple[FarmWorker, ...] = ()
    lost: int = 0
    error: Mapping[str, str] | None = None
    errors: int = 1 << 30
    loses: str = ""
    address: str = "tcp://farm:1"
    dashboard: str | None = "http://farm:8787/status"
    is_gone: bool = False
    answers: bool = True
    notes: tuple[str, ...] = ()
    labels: list[str] = field(default_factory=list)
    said: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, address: str) -> Cluster:
        return self

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def workers(self) -> tuple[FarmWorker, ...]:
        return self.there

    def told(self) -> list[Mapping[str, Any]]:
        found, self.said = self.said, []
        return found

    def submit(
        self,
        label: str,
        cell: str,
        bundle: bytes,
        variant: str,
        segments: Sequence[str],
        cache: bool,
        fit: Fit,
    ) -> Task:
        self.labels.append(label)
        self.said.append({"cell": cell, "name": fit.workers[0].name, "began": True})
        if self.lost:
            self.lost -= 1
            return Task("lost")
        if self.error is not None and self.errors:
            self.errors -= 1
            return Task("finished", {"name": "w1", "error": self.error})
        told = self.said.append
        made = tasks.engines_of(
            bundle,
            variant,
            segments,
            cache,
            Path(tempfile.mkdtemp(dir=".")),
            lambda said: told({"cell": cell, "name": "w1", **said}),
        )
        made["engines"] = [e for e in made["engines"] if e["segment"] != self.loses]
        return Task("finished", {"name": "w1", **made})


def h200(name: str = "w1") -> FarmWorker:
    return FarmWorker("tcp://w1:1", name, ("h200-sxm@tensorrt-10.13",), WORKER, "2026.8.0")


@dataclass
class Seen(View):
    """Keeps what it is told."""

    lines: list[str] = field(default_factory=list)

    def at(self, cell: str, where: str, text: str) -> None:
        self.lines.append(f"{cell} at {where}: {text}")

    def waits(self, cell: str, text: str) -> None:
        self.lines.append(f"{cell} waits: {text}")

    def ends(self, result: CellResult) -> None:
        self.lines.append(f"{result.cell} ends: {result.state}")

    def says(self, text: str) -> None:
        self.lines.append(text)


def run(
    monkeypatch: pytest.MonkeyPatch,
    crew: Crew,
    cluster: Cluster | None = None,
    matrix: str = MATRIX,
    view: View | None = None,
    **settings: Any,
) -> MatrixReport:
    monkeypatch.setattr(cells, "Crew", crew)
    monkeypatch.setattr(cells, "Cluster", cluster)
    monkeypatch.setattr(cells, "_TICK_S", 0.0)
    Path("matrix.toml").write_text(matrix, encoding="utf-8")
    flags = CommandFlags()
    plan = plan_cells(read_matrix(Path("matrix.toml"), flags), flags)
    farm = {"farm": "tcp://farm:1"} if cluster is not None else {}
    return build_matrix(
        plan,
        lambda cell: flags.parsed([*cell.build_arguments, "--target", cell.asked]),
        Settings(Path("out"), **{"farm_timeout_s": 0.0, **farm, **settings}),
        view or View(),
    )


def test_engines_come_from_the_farm_and_the_second_time_from_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crew, farm, view = Crew(), Cluster((h200(),)), Seen()
    report = run(monkeypatch, crew, farm, view=view)
    assert report.passed
    assert [request.options.defer for request in crew.started] == [True, True]
    assert farm.labels[0] == "a @ h200-sxm"
    assert view.lines[0] == "dashboard at http://farm:8787/status"
    first, second = report.cells
    assert [(e.worker, e.cached) for e in first.engines] == [("w1", False)] * 2
    assert second.is_cached  # both models are one network here: this host had its engines
    bundle = open_bundle(Path("out/a-h200-sxm/bundle.tar"))
    bundle.verify()
    refs = bundle.manifest.variants["h200"].engines
    assert all(ref.member is not None and ref.deferred is None for ref in refs.values())
    assert TacticStore().read(TacticKey.of(WORKER)) is not None
    told = json.loads(Path("out/a-h200-sxm/build.json").read_bytes())
    assert told["bundle"]["nbytes"] == first.nbytes == Path(str(first.bundle)).stat().st_size
    assert {e["worker"] for e in told["targets"][0]["engines"]} == {"w1"}
    assert any(line.startswith("a-h200-sxm at w1: building forward_0") for line in view.lines)

    again = Cluster((h200("another"),))
    report = run(monkeypatch, Crew(), again)
    assert again.labels == []
    assert report.to_json()["totals"] == {
        "built": 2,
        "engines_built": 0,
        "engines_cached": 4,
        "engines_deferred": 0,
    }
    assert "engines: 4 from the cache" in report.to_text()


def test_without_a_cache_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = MATRIX + "[build]\nno-cache = true\n"
    for _ in range(2):
        farm = Cluster((h200(),))
        assert run(monkeypatch, Crew(), farm, matrix).passed
        assert len(farm.labels) == 2
    assert TacticStore().read(TacticKey.of(WORKER)) is None


def test_a_lost_task_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    view = Seen()
    report = run(monkeypatch, Crew(), Cluster((h200(),), lost=2), ALONE, view)
    assert report.passed
    assert report.cells[0].tries == 3
    assert any("the worker that had it went away; it is begun again" in line for line in view.lines)


def test_a_task_that_is_lost_for_ever_fails_its_cell_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(monkeypatch, Crew(), Cluster((h200(),), lost=3), ALONE + OTHER)
    assert [(cell.cell, cell.state) for cell in report.cells] == [
        ("a-h200-sxm", "failed"),
        ("a-orin", "built"),
    ]
    assert report.failures == {"a-h200-sxm": "the worker that had it went away"}


def test_what_a_worker_refuses_fails_its_cell_with_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = {"class": "EngineBuildError", "message": "forward_0: no tactic", "hint": "use less"}
    report = run(monkeypatch, Crew(), Cluster((h200(),), error=error))
    cell = report.cells[0]
    assert (cell.state, cell.error) == ("failed", "EngineBuildError")
    assert cell.reason == "forward_0: no tactic (on worker w1)"
    assert Path(str(cell.log)).read_text() == "what was printed"


@pytest.mark.parametrize("kind", ["BuildKilled", "BuildCancelled"])
def test_a_build_that_was_stopped_is_begun_again(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    error = {"class": kind, "message": "the build was stopped", "hint": "start it again"}
    report = run(monkeypatch, Crew(), Cluster((h200(),), error=error, errors=2), ALONE)
    assert (report.cells[0].state, report.cells[0].tries) == ("built", 3)
    report = run(
        monkeypatch, Crew(), Cluster((h200(),), error=error), ALONE + "[build]\nno-cache=true\n"
    )
    assert report.cells[0].reason == "the build was stopped (on worker w1)"


def test_a_worker_that_answers_other_engines_fails_the_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = run(monkeypatch, Crew(), Cluster((h200(),), loses="forward_1"), ALONE)
    assert report.cells[0].reason == (
        "worker w1 answered engines of forward_0, wanted forward_0, forward_1"
    )


def test_a_target_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    view = Seen()
    report = run(monkeypatch, Crew(), Cluster(), view=view, farm_timeout_s=0.05)
    assert {cell.reason for cell in report.cells} == {"no worker of the farm has h200-sxm"}
    assert "--target h200-sxm@tensorrt-10.13" in report.cells[0].hint
    assert any("waiting 0 s more for one" in line for line in view.lines)
    report = run(monkeypatch, Crew(), Cluster(), no_worker="defer")
    assert report.passed
    assert all(e.deferred for cell in report.cells for e in cell.engines)
    open_bundle(Path("out/a-h200-sxm/bundle.tar")).verify()


def test_what_this_host_can_build_needs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "facts", lambda: WORKER)
    crew = Crew(size=2)
    report = run(monkeypatch, crew, Cluster(), jobs=2)
    assert report.notes == ("no worker of the farm has h200-sxm: its engines are built here",)
    assert [request.options.defer for request in crew.started] == [False, False]
    assert crew.most_at_once == 1  # they are measured on one GPU


def test_workers_unlike_this_host_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**WORKER, "torch": "2.3.0"}
    there = FarmWorker("tcp://w1:1", "w1", ("h200-sxm@tensorrt-10.13",), old, "2024.1.0")
    report = run(monkeypatch, Crew(), Cluster((there,)))
    assert report.passed
    assert any("worker w1 has PyTorch 2.3.0, this host" in note for note in report.notes)
    assert any("worker w1 has Dask 2024.1.0, this host" in note for note in report.notes)


def test_a_process_that_dies_is_begun_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, view = Crew(deaths={"a-h200-sxm": 1, "b-h200-sxm": 2}), Seen()
    report = run(monkeypatch, crew, view=view)
    assert "a-h200-sxm: its process ended by SIGKILL; it is begun again" in view.lines
    first, second = report.cells
    assert (first.state, first.tries) == ("built", 2)
    assert second.reason == "the process that built it ended by SIGKILL, 2 times"


def test_a_cell_that_fails_leaves_the_others_and_its_older_bundle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(monkeypatch, Crew()).passed
    before = Path("out/a-h200-sxm/bundle.tar").read_bytes()
    error = {"class": "CaptureError", "message": "it branches on data", "hint": "use torch.cond"}
    report = run(monkeypatch, Crew(errors={"a-h200-sxm": error}))
    assert report.failures == {"a-h200-sxm": "it branches on data"}
    assert [cell.result for cell in report.cells] == ["failed", "passed"]
    assert Path("out/a-h200-sxm/bundle.tar").read_bytes() == before
    assert not Path("out/a-h200-sxm/build.json").exists()
    lines = report.to_text().splitlines()
    assert "a-h200-sxm: it branches on data" in lines
    assert "  see out/a-h200-sxm/build.log" in lines
    assert not list(Path("out").glob(".trtpack*"))


def test_cells_that_may_fail_and_cells_that_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = f"""{MATRIX}
    [[exclude]]
    model = "b"
    reason = "too slow"
    [[expect-failure]]
    model = "a"
    reason = "overflows"
    strict = true
    """
    error = {"class": "SmokeFailure", "message": "is wrong", "hint": "look"}
    report = run(monkeypatch, Crew(errors={"a-h200-sxm": error}), matrix=matrix)
    assert report.passed
    assert [cell.result or cell.state for cell in report.cells] == ["expected failure", "excluded"]
    report = run(monkeypatch, Crew(), matrix=matrix)
    assert report.failures == {"a-h200-sxm": "passes: take its [[expect-failure]] away"}


def test_an_output_that_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot write to the folder out: it is no folder"):
        run(monkeypatch, Crew())


def test_an_error_of_a_worker_is_its_class_again() -> None:
    told = {"class": "BuildKilled", "message": "it was killed", "hint": "free memory"}
    assert type(tasks.raised(told, "w1")).__name__ == "BuildKilled"
    odd = tasks.raised({**told, "class": "os"}, "w1")
    assert type(odd) is EngineBuildError
    assert odd.message == "it was killed (on worker w1)"
