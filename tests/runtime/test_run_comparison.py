# SPDX-License-Identifier: Apache-2.0
"""A run beside a previous one: what is news, what is noise, and what is not alike."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.run_reports import report, smoke
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.run_comparison import Comparison, compare, read_previous
from trtpack_runtime.run_report import RunReport
from trtpack_runtime.vitals import MemoryPeaks


def beside(
    folder: Path, before: RunReport | dict[str, Any], now: RunReport, tolerance: float = 0.05
) -> Comparison:
    path = folder / "previous.json"
    path.write_text(json.dumps(before if isinstance(before, dict) else before.to_json()))
    return compare(now.to_json(), read_previous(path, now.name), tolerance)


def verdicts(found: Comparison) -> dict[str, str]:
    return {f"{c.kind} {c.name}": c.verdict for c in found.changes if c.verdict != "same"}


def test_a_run_is_as_good_as_itself(tmp_path: Path) -> None:
    found = beside(tmp_path, report(), report())
    assert verdicts(found) == {}
    assert len(found.changes) == 6  # latency twice, memory twice, an output, a segment
    assert (found.unlike, found.notes) == ((), ())
    assert found.to_json()["like_with_like"] is True


@pytest.mark.parametrize(
    ("before", "now", "spread", "verdict"),
    [
        (10.0, 12.0, 0.01, "worse"),
        (12.0, 10.0, 0.01, "better"),
        (10.0, 10.4, 0.001, None),  # within the tolerance, however sure
        (10.0, 12.0, 0.2, None),  # within what calls of one run differ by
        (12.0, 10.0, 0.2, None),
    ],
)
def test_only_what_is_beyond_tolerance_and_noise_is_news(
    tmp_path: Path, before: float, now: float, spread: float, verdict: str | None
) -> None:
    found = beside(
        tmp_path, report(p50_ms=before, spread=spread), report(p50_ms=now, spread=spread)
    )
    wanted = {"latency latency p50": verdict, "latency GPU time p50": verdict} if verdict else {}
    assert verdicts(found) == wanted


def test_more_may_be_tolerated(tmp_path: Path) -> None:
    slower = report(p50_ms=12.0, spread=0.01)
    assert verdicts(beside(tmp_path, report(spread=0.01), slower, 0.25)) == {}


def test_what_got_worse_is_told_in_numbers(tmp_path: Path) -> None:
    found = beside(tmp_path, report(spread=0.01), report(p50_ms=12.0, spread=0.01))
    assert found.worse[0].text == "forward() latency p50 12 ms, was 10 ms (+20.0 %)"
    assert (found.worse[0].before, found.worse[0].now) == (10.0, 12.0)
    failing = report()
    failing.against = found
    (failure,) = failing.failures()
    assert failure.message == f"worse than the previous run: {found.worse[0].text}, and 1 more"
    assert (failure.wants, failure.has) == (10.0, 12.0)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (500, 560, "worse"),
        (560, 500, "better"),
        (100, 115, None),  # less than 16 MB
        (2000, 2050, None),  # less than 5 %
    ],
)
def test_memory_that_grew(tmp_path: Path, before: int, now: int, verdict: str | None) -> None:
    found = beside(
        tmp_path, report(gpu_bytes=before * 1_000_000), report(gpu_bytes=now * 1_000_000)
    )
    assert verdicts(found) == ({"memory GPU memory": verdict} if verdict else {})


def test_memory_measured_in_another_way_is_not_compared(tmp_path: Path) -> None:
    now = report()
    now.memory = MemoryPeaks(900_000_000, True, 5_000_000_000, "device")
    found = beside(tmp_path, report(), now)
    assert verdicts(found) == {}
    assert found.notes == ("GPU memory was measured in another way then",)


@pytest.mark.parametrize(
    ("before", "now", "dtype", "verdict"),
    [
        (1e-4, 3e-4, "float32", "worse"),
        (3e-4, 1e-4, "float32", "better"),
        (1e-4, 1.5e-4, "float32", None),
        (1e-4, 3e-4, "float16", None),  # less than a step of the type
        (0.0, 5e-8, "float32", None),
        (1e-3, float("inf"), "float32", "worse"),
    ],
)
def test_errors_that_grew(
    tmp_path: Path, before: float, now: float, dtype: str, verdict: str | None
) -> None:
    first, second = report(), report()
    first.methods[0].smoke, second.methods[0].smoke = smoke(before, dtype), smoke(now, dtype)
    found = verdicts(beside(tmp_path, first, second))
    assert found == ({"golden forward-0 logits": verdict} if verdict else {})


def test_an_output_that_breaks_its_tolerance_got_worse(tmp_path: Path) -> None:
    now = report()
    now.methods[0].smoke = smoke(1.01e-4, failure="at most 1e-4 is allowed")
    assert verdicts(beside(tmp_path, report(), now)) == {"golden forward-0 logits": "worse"}
    assert verdicts(beside(tmp_path, now, report())) == {"golden forward-0 logits": "better"}


def test_whole_numbers_are_counted(tmp_path: Path) -> None:
    before, now = report(), report()
    before.methods[0].smoke = now.methods[0].smoke = smoke(dtype="int64")
    value = before.to_json()
    value["methods"]["forward"]["smoke"]["outputs"][0]["metrics"]["differing"] = 6
    found = beside(tmp_path, value, now)
    assert [c.text for c in found.worse] == ["forward-0 logits: elements that differ 7, was 6"]


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ("tensorrt", "reference", "worse"),
        ("tensorrt", "inductor", "worse"),
        ("reference", "tensorrt-rtx", "better"),
        ("tensorrt", "tensorrt-rtx", "changed"),
    ],
)
def test_segments_that_run_on_another_kind(
    tmp_path: Path, before: str, now: str, verdict: str
) -> None:
    found = beside(tmp_path, report(kind=before), report(kind=now))
    assert verdicts(found) == {"engine forward_0": verdict}
    if now == "reference":
        assert found.worse[0].text == "forward_0 runs on PyTorch (reference), was tensorrt"


def test_other_machines_are_not_like_with_like(tmp_path: Path) -> None:
    now = report(driver="550.1")
    now.machine = {**now.machine, "power_mode": "15W", "tensorrt": "10.3.0"}
    now.settings = {"cuda_graphs": True}
    found = beside(tmp_path, report(), now)
    assert found.unlike == (
        "driver 550.1, was 540.4.0",
        "TensorRT 10.3.0, was none",
        "power mode 15W, was MAXN",
        "cuda graphs on, was off",
    )
    assert found.to_json()["like_with_like"] is False


def test_what_cannot_be_compared_is_noted(tmp_path: Path) -> None:
    before, now = report(digest="bb").to_json(), report(p50_ms=99.0)
    before["methods"]["forward"]["inputs"][0]["shape"] = [1, 3, 224, 224]
    before["methods"]["forward"]["segments"][0]["name"] = "other"
    before["methods"]["forward"]["smoke"]["outputs"][0]["sample"] = "forward-1"
    found = beside(tmp_path, before, now)
    assert verdicts(found) == {}
    assert found.notes == (
        "the bundle was built again since",
        "forward() has other segments than then",
        "forward-0 logits was not compared then",
        "forward() was timed with other inputs then",
    )
    del before["methods"]["forward"]
    assert "forward() was not run then" in beside(tmp_path, before, now).notes


def test_what_was_left_out_is_not_compared(tmp_path: Path) -> None:
    short = report()
    short.methods[0].bench = short.methods[0].smoke = short.memory = None
    assert len(beside(tmp_path, short, report()).changes) == 1
    assert len(beside(tmp_path, report(), short).changes) == 1


def test_another_models_run_is_refused(tmp_path: Path) -> None:
    now = report()
    now.name = "vit"
    with pytest.raises(ConfigError, match="is of another bundle: of 'resnet18', this one is of"):
        beside(tmp_path, report(), now)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no JSON"),
        ("[]", "the top wants an object"),
        ("{}", "schema is missing"),
        ('{"schema": "trtpack.run/2"}', 'schema wants trtpack.run/1, has "trtpack.run/2"'),
        ('{"schema": "trtpack.run/1", "bundle": {}}', "bundle.name is missing"),
    ],
)
def test_malformed_reports_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "previous.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="no report of trtpack run") as caught:
        read_previous(path, "resnet18")
    assert said in caught.value.message
    with pytest.raises(ConfigError, match="No such file"):
        read_previous(tmp_path / "nothing.json", "resnet18")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("latency", "wall", "p50_ms"), "fast", "wall.p50_ms wants a number above 0"),
        (("latency", "wall", "p25_ms"), 0, "wall.p25_ms wants a number above 0"),
        (("smoke", "outputs"), {}, "smoke.outputs wants a list"),
        (("segments",), None, "methods.forward.segments is missing"),
    ],
)
def test_values_out_of_place_are_named(
    tmp_path: Path, place: tuple[str, ...], value: Any, said: str
) -> None:
    before = copy.deepcopy(report().to_json())
    *way, last = place
    found = before["methods"]["forward"]
    for key in way:
        found = found[key]
    found[last] = value
    with pytest.raises(ConfigError) as caught:
        beside(tmp_path, before, report())
    assert said in caught.value.message
