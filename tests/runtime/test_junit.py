# SPDX-License-Identifier: Apache-2.0
"""The XML is well formed whatever the texts hold."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from trtpack_runtime import junit


def test_failures_are_counted_and_told(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    cases = [
        junit.Case("resnet18.smoke", "forward-0 output", 0.5),
        junit.Case("resnet18.smoke", "forward-1 <output>", 0.25, failure='off by "3" \x00\x1b[0m'),
        junit.Case("resnet18.latency", "forward", 1.0, output="p50 3.1 ms"),
    ]
    junit.write(path, "trtpack run", cases)
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("3", "1", "1.750000")
    failure = suite.find("testcase[2]/failure")
    assert failure is not None
    assert failure.get("message") == 'off by "3" ??[0m'
    assert suite.findtext("testcase[3]/system-out") == "p50 3.1 ms"
