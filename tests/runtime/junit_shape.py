# SPDX-License-Identifier: Apache-2.0
"""The shape of JUnit XML, after Jenkins' ``junit-10.xsd``, as far as reports of ours go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

_NUMBERS = {"tests", "failures", "errors", "skipped", "time"}
_SHAPE: Mapping[str, Mapping[str, Any]] = {
    "testsuites": {
        "may": {"name", "time", "tests", "failures", "disabled", "errors"},
        "children": ["testsuite"],
    },
    "testsuite": {
        "must": {"name", "tests"},
        "may": {"failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"},
        "children": ["properties", "testcase", "system-out", "system-err"],
    },
    "properties": {"children": ["property"]},
    "property": {"must": {"name", "value"}},
    "testcase": {
        "must": {"name", "classname"},
        "may": {"time", "assertions", "status"},
        "children": ["skipped", "error", "failure", "system-out", "system-err"],
    },
    "skipped": {"may": {"message", "type"}},
    "failure": {"may": {"message", "type"}},
    "system-out": {},
}


def check_shape(element: Element) -> None:
    """AssertionError where an element, an attribute or their order is not what readers take."""
    shape = _SHAPE[element.tag]
    must, may = shape.get("must", set()), shape.get("may", set())
    assert must <= set(element.keys()) <= must | may, element.tag
    for name in _NUMBERS & set(element.keys()):
        assert float(element.get(name, "")) >= 0, f"{element.tag}.{name}"
    order = shape.get("children", [])
    places = [order.index(child.tag) for child in element]
    assert places == sorted(places), element.tag
    for child in element:
        check_shape(child)
    if element.tag == "testsuite":
        cases = element.findall("testcase")
        for name, tag in (("failures", "failure"), ("skipped", "skipped")):
            counted = sum(case.find(tag) is not None for case in cases)
            assert element.get(name) == str(counted), name
        assert element.get("tests") == str(len(cases))
