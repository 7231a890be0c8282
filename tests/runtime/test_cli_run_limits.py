# SPDX-License-Identifier: Apache-2.0
"""``trtpack run`` held against limits and a previous run; bundles with several methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.runtime import handmade
from tests.runtime.junit_shape import check_shape
from trtpack_runtime.cli import main

FEW = ("--warmup", 1, "--repeats", 5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write(tmp_path_factory.mktemp("limits") / "bundle.tar", also="encode")


@pytest.fixture
def trtpack(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


def test_limits_that_are_kept_are_told(bundle: Path, trtpack: Any) -> None:
    limits = ("--max-latency-ms", 9000, "--max-memory-mb", 90000)
    code, out, err = trtpack("run", bundle, *FEW, "--method", "forward", *limits)
    assert (code, err) == (0, "")
    assert "\n  ✓  latency  p99 " in out
    assert " MB, at most 90000 MB wanted (command line)\n" in out
    assert out.endswith("\n✓ outputs are right, limits are kept\n")


def test_a_limit_that_is_exceeded_fails_the_run(bundle: Path, tmp_path: Path, trtpack: Any) -> None:
    junit = tmp_path / "report.xml"
    limits = ("--max-latency-ms", 1e-6, "--limit-percentile", "p50")
    code, out, err = trtpack(
        "run", bundle, *FEW, "--method", "forward", *limits, "--junit", junit, "--json"
    )
    assert code == 7
    assert err.startswith("error: forward() exceeds the latency limit of the command line: p50 "), (
        err
    )
    found = json.loads(out)
    assert found["passed"] is False
    (limit,) = found["limits"]
    assert (limit["wants"], limit["passed"], limit["unit"]) == (1e-6, False, "ms")
    assert limit["has"] == found["methods"]["forward"]["latency"]["wall"]["p50_ms"]
    root = ElementTree.parse(junit).getroot()
    check_shape(root)
    assert [c.get("name") for c in root.iter("testcase") if c.find("failure") is not None] == [
        "forward latency"
    ]


def test_the_bundles_own_limits_hold_unless_others_are_given(tmp_path: Path, trtpack: Any) -> None:
    path = handmade.write(tmp_path / "b.tar", limits={"max_memory_mb": 1.5, "max_latency_ms": 9e3})
    code, out, err = trtpack("run", path, *FEW)
    assert code == 7
    assert "exceeds the memory limit of the bundle: main memory " in err
    assert "\n  ✗  memory   main memory " in out
    assert trtpack("run", path, *FEW, "--max-memory-mb", 90000)[0] == 0


def test_a_limit_without_its_measurement(tmp_path: Path, trtpack: Any) -> None:
    path = handmade.write(tmp_path / "b.tar", limits={"max_latency_ms": 1e-6})
    code, out, _ = trtpack("run", path, "--no-bench")
    assert code == 0
    assert "\n  ·  latency  p99 not measured, at most 1e-06 ms wanted (bundle)\n" in out
    code, _, err = trtpack("run", path, "--no-bench", "--max-latency-ms", 5)
    assert (code, err.splitlines()[0]) == (
        2,
        "error: --max-latency-ms needs the latency, which --no-bench leaves out",
    )


@pytest.mark.parametrize("limit", ["--max-latency-ms", "--max-memory-mb"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_limit_is_a_finite_number(bundle: Path, trtpack: Any, limit: str, value: str) -> None:
    code, _, err = trtpack("run", bundle, limit, value)
    assert (code, err.splitlines()[0]) == (
        2,
        f"error: invalid value for '{limit}': '{value}' is no finite number",
    )


@pytest.mark.parametrize(("option", "name"), [("--junit", "r.xml"), ("--output", "y.npz")])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    bundle: Path, tmp_path: Path, trtpack: Any, option: str, name: str
) -> None:
    folder = tmp_path / "none"
    code, out, err = trtpack("run", bundle, *FEW, option, folder / name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: there is no folder {folder}\n")


def test_runs_are_compared(bundle: Path, tmp_path: Path, trtpack: Any) -> None:
    code, out, _ = trtpack("run", bundle, *FEW, "--json", "--method", "forward")
    assert code == 0
    before = json.loads(out)
    path, junit = tmp_path / "before.json", tmp_path / "report.xml"
    wall = before["methods"]["forward"]["latency"]["wall"]
    wall |= {"p25_ms": 5e3, "p50_ms": 5e3, "p75_ms": 5e3}  # now it is faster
    before["machine"]["driver"] = "1.0"
    path.write_text(json.dumps(before))
    compared = ("run", bundle, *FEW, "--method", "forward", "--against", path)
    code, out, err = trtpack(*compared)
    assert (code, err) == (0, "")
    assert f"beside {path}: 1 better, " in out
    assert "  ·  not like with like: driver none, was 1.0\n" in out
    assert " ms, was 5000 ms (-100.0 %), better\n" in out
    assert out.endswith("\n✓ outputs are right, nothing got worse\n")
    wall |= {"p25_ms": 1e-6, "p50_ms": 1e-6, "p75_ms": 1e-6}  # and now slower
    path.write_text(json.dumps(before))
    code, out, err = trtpack(*compared, "--tolerate", "50%", "--junit", junit)
    assert code == 7
    assert err.startswith("error: worse than the previous run: forward() latency p50 ")
    root = ElementTree.parse(junit).getroot()
    check_shape(root)
    assert root.get("failures") == "1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory"),
        ("no", "it is no JSON"),
        ('{"schema": "trtpack.run/1", "bundle": {"name": "vit"}, "machine": {}, "methods": {}}',
         "is of another bundle: of 'vit', this one is of 'classifier'"),
    ],
)  # fmt: skip
def test_a_previous_run_that_cannot_be_read(
    bundle: Path, tmp_path: Path, trtpack: Any, text: str | None, said: str
) -> None:
    path = tmp_path / "before.json"
    if text is not None:
        path.write_text(text)
    code, _, err = trtpack("run", bundle, "--no-bench", "--against", path)
    assert code == 2
    assert said in err.splitlines()[0]


def test_every_method_is_proved_and_measured(bundle: Path, trtpack: Any) -> None:
    code, out, _ = trtpack("run", bundle, *FEW, "--max-latency-ms", 9000)
    assert code == 0
    assert out.index("\nencode()\n") < out.index("\nforward()\n")
    assert out.count("smoke test: passed") == 2
    assert "  ✓  encode() latency   p99 " in out
    found = json.loads(trtpack("run", bundle, *FEW, "--json")[1])
    assert list(found["methods"]) == ["encode", "forward"]
    only = json.loads(trtpack("run", bundle, *FEW, "--json", "--method", "encode")[1])
    assert list(only["methods"]) == ["encode"]


@pytest.mark.parametrize("option", ["--input", "--output"])
def test_inputs_and_outputs_are_one_methods(
    bundle: Path, tmp_path: Path, trtpack: Any, option: str
) -> None:
    code, _, err = trtpack("run", bundle, option, tmp_path / "x.npz")
    assert code == 2
    assert err.splitlines() == [
        f"error: {option} is for one method, this runs encode, forward",
        "hint: add --method encode",
    ]


@pytest.mark.parametrize("percent", ["-1%", "much", "nan"])
def test_a_tolerance_is_a_percentage(bundle: Path, trtpack: Any, percent: str) -> None:
    code, _, err = trtpack("run", bundle, "--tolerate", percent)
    assert code == 2
    assert f"'{percent}' is no percentage such as 5%" in err


@pytest.mark.parametrize("width", [200, 62, 50, 40])
def test_narrow_screens_show_fewer_figures(
    bundle: Path, trtpack: Any, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = trtpack("run", bundle, *FEW, "--method", "forward")[1]
    lines = out.splitlines()
    tables = [line for line in lines if "forward-0" in line or "rel. L2" in line]
    assert all(len(line) <= width for line in tables)
    (header,) = (line for line in lines if line.startswith("  ms "))
    assert len(header) <= width
    assert {"p50", "p99", "max"} <= set(header.split())


@pytest.mark.gpu
def test_a_gpu_is_measured_by_its_own_events_and_watched(bundle: Path, trtpack: Any) -> None:
    code, out, _ = trtpack(
        "run", bundle, "--device", "cuda", "--target", "orin", "--method", "forward", "--json"
    )
    found = json.loads(out)
    assert code == 0
    run = found["methods"]["forward"]
    wall, gpu = run["latency"]["wall"], run["latency"]["gpu"]
    assert wall["calls"] == gpu["calls"] >= 30
    assert gpu["p50_ms"] > 0
    assert run["vitals"]["figures"]["temperature_c"]["max"] > 10
    assert found["memory"]["on_gpu"] is True
    assert found["memory"]["gpu_bytes"] >= found["memory"]["torch_bytes"] > 0
    assert found["device"].startswith("cuda:")
    assert {"device", "sm", "driver"} <= found["machine"].keys()
