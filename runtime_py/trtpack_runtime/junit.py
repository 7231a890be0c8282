# SPDX-License-Identifier: Apache-2.0
"""JUnit XML, the report that continuous integration systems read.

There is no standard; this is what Jenkins' ``junit-10.xsd`` takes, and so what others take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .atomic import cannot_write

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One check: passed unless ``failure`` says what went wrong or ``skipped`` why it was not
    done."""

    group: str
    name: str
    seconds: float = 0.0
    failure: str | None = None
    output: str = ""
    skipped: str | None = None


def to_xml(suite: str, cases: Sequence[Case], properties: Mapping[str, str] | None = None) -> bytes:
    """A report with one test suite; ``properties`` are facts about it."""
    totals = {
        "name": _text(suite),
        "tests": str(len(cases)),
        "failures": str(sum(case.failure is not None for case in cases)),
        "errors": "0",
        "time": f"{sum(case.seconds for case in cases):.6f}",
    }
    skipped = {"skipped": str(sum(case.skipped is not None for case in cases))}
    root = ElementTree.Element("testsuites", totals)
    element = ElementTree.SubElement(root, "testsuite", totals | skipped)
    if properties:
        listed = ElementTree.SubElement(element, "properties")
        for name, value in properties.items():
            named = {"name": _text(name), "value": _text(value)}
            ElementTree.SubElement(listed, "property", named)
    for case in cases:
        attributes = {
            "classname": _text(case.group),
            "name": _text(case.name),
            "time": f"{case.seconds:.6f}",
        }
        test = ElementTree.SubElement(element, "testcase", attributes)
        if case.skipped is not None:
            ElementTree.SubElement(test, "skipped", {"message": _text(case.skipped)})
        if case.failure is not None:
            message = _text(case.failure)
            ElementTree.SubElement(test, "failure", {"message": message}).text = message
        if case.output:
            ElementTree.SubElement(test, "system-out").text = _text(case.output)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def write(
    path: Path, suite: str, cases: Sequence[Case], properties: Mapping[str, str] | None = None
) -> None:
    """Writes the report; ConfigError if the disk refuses."""
    try:
        path.write_bytes(to_xml(suite, cases, properties))
    except OSError as error:
        raise cannot_write(path, error) from error


def _text(value: str) -> str:
    return _NOT_XML.sub("?", value)
