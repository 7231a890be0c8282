# SPDX-License-Identifier: Apache-2.0
"""The XML is well formed whatever the texts hold, and of the shape that readers take."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.runtime.junit_shape import check_shape
from tests.runtime.run_reports import report
from trtpack_runtime import junit
from trtpack_runtime.cli.run_cases import cases, properties
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.limits import LimitCheck


def test_failures_are_counted_and_told(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    found = [
        junit.Case("resnet18.smoke", "forward-0 output", 0.5),
        junit.Case("resnet18.smoke", "forward-1 <output>", 0.25, failure='off by "3" \x00\x1b[0m'),
        junit.Case("resnet18.latency", "forward", 1.0, output="p50 3.1 ms"),
        junit.Case("resnet18.limits", "latency", skipped="not measured"),
    ]
    junit.write(path, "trtpack run", found, {"device": "Orin"})
    root = ElementTree.parse(path).getroot()
    check_shape(root)
    suite = root.find("testsuite")
    assert suite is not None
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")]
    assert counts == ["4", "1", "0", "1", "1.750000"]
    failure = suite.find("testcase[2]/failure")
    assert failure is not None
    assert failure.get("message") == 'off by "3" ??[0m'
    assert suite.findtext("testcase[3]/system-out") == "p50 3.1 ms"
    assert suite.find("testcase[4]/skipped[@message='not measured']") is not None
    assert suite.find("properties/property[@name='device'][@value='Orin']") is not None


def test_a_disk_that_refuses_is_told_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "none" / "report.xml"
    with pytest.raises(ConfigError, match=f"cannot write {path}: there is no folder"):
        junit.write(path, "trtpack run", [])


def test_a_run_has_a_case_for_everything_that_is_judged() -> None:
    run = report(full=True)
    run.limits.append(LimitCheck("forward", "memory", "GPU memory", "MB", 400.0, 500.0, "bundle"))
    run.limits.append(LimitCheck("other", "latency", "p99", "ms", 5.0, None, "bundle"))
    xml = junit.to_xml("trtpack run", list(cases(run)), properties(run))
    root = ElementTree.fromstring(xml)
    check_shape(root)
    found = {
        f"{case.get('classname')} {case.get('name')}": [child.tag for child in case]
        for case in root.iter("testcase")
    }
    assert found == {
        "resnet18.orin.engines forward_0": ["system-out"],
        "resnet18.orin.engines forward_1": ["failure"],
        "resnet18.orin.smoke forward-0 logits": ["system-out"],
        "resnet18.orin.latency forward": ["system-out"],
        "resnet18.orin.limits forward latency": ["system-out"],
        "resnet18.orin.limits forward memory": ["failure"],
        "resnet18.orin.limits other latency": ["skipped"],
        "resnet18.orin.against forward latency latency p50": ["failure"],
    }
    told = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert (told["device"], told["power_mode"], told["runs_on"]) == ("Orin", "MAXN", "cuda:0")
    assert told["not_like_with_like"] == "driver 2, was 1"
