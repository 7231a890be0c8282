# SPDX-License-Identifier: Apache-2.0
"""The page docs/reference/opinfo.md: what it says of each operator, and that its sums are right."""

from __future__ import annotations

import re

from tests.sweep import document, table
from tests.sweep.trying import Outcome, Settings

_ROW = re.compile(r"\| [^|]+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| [^|]*\|")


def test_each_operator_stands_where_it_belongs() -> None:
    found = [
        Outcome("half", "float32", 0, "right"),
        Outcome("half", "int64", 0, "refused", "aten.half: floats | only"),
        Outcome("never", "float32", 0, "refused", "aten.never: no converter"),
        Outcome("random", "float32", 0, "untried", "answers random numbers"),
    ]
    page = document.text(table.rows(found), Settings(most=None), ["float32", "int64"], (7, 8))
    assert "**7 of 8** pairs" in page
    assert "| half | 2 | 1 | 1 | 0 | aten.half: floats \\| only |" in page
    assert "| never | 1 | aten.never: no converter |" in page
    assert "| random | answers random numbers |" in page
    assert "| reach a converter | 1 | 2 | 1 | 1 | 0 |" in page
    assert "| in all | 2 | 3 | 1 | 2 | 0 |" in page


def test_the_page_adds_up_and_nothing_is_wrong() -> None:
    page = document.PATH.read_text()
    totals = re.search(
        r"\| reach a converter \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page
    )
    assert totals is not None
    rows = [tuple(map(int, match)) for match in _ROW.findall(page.split("\n## ")[1])]
    assert [len(rows), *map(sum, zip(*rows, strict=True))] == [int(n) for n in totals.groups()]
    assert totals.group(5) == "0"
