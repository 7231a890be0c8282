# SPDX-License-Identifier: Apache-2.0
"""What each TensorRT release has: classes, methods, keywords, properties, enum members, numbers.

``tests/facts/trt_api.json`` was introspected from the published Python bindings of each release
and, but for 11.4 and TensorRT-RTX, held against their sources. A method is a list of overloads, an
overload the names of its parameters, ``=`` behind one with a default. A property is ``r``, ``w`` or
``rw``. The first release stands in full, every other as a JSON merge patch (RFC 7396) on the one
before it. From the full tables the file is made again by

    python -m tests.runtime.trt_double.facts FULL.json >tests/facts/trt_api.json
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "facts" / "trt_api.json"
PARTS = ("product", "classes", "enums", "functions", "dtype_aliases")


@cache
def releases() -> dict[str, dict[str, Any]]:
    """The tables of every release, the oldest first; not to be changed."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    tables: dict[str, dict[str, Any]] = {}
    table: Any = {}
    for release, change in stored["releases"].items():
        table = tables[release] = _patched(table, change)
    return tables


def has(release: str, name: str) -> bool:
    """Whether a release has ``Class``, ``Class.member``, ``Enum.MEMBER`` or a function."""
    table = releases()[release]
    owner, _, member = name.partition(".")
    if owner in table["enums"]:
        return not member or member in table["enums"][owner]
    if owner in table["classes"]:
        return not member or member in members(release, owner)
    return not member and (owner in table["functions"] or owner in table["dtype_aliases"])


def members(release: str, owner: str) -> set[str]:
    """The methods and properties of a class, inherited ones too."""
    row = releases()[release]["classes"][owner]
    inherited = (members(release, base) for base in row["bases"])
    return {*row["methods"], *row["properties"]}.union(*inherited)


def _patched(table: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    merged = dict(table) if isinstance(table, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _patched(merged.get(key), value)
    return merged


def _change(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that makes ``new`` of ``old``."""
    change: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or not (isinstance(value, dict) and isinstance(old[key], dict)):
            if key not in old or old[key] != value:
                change[key] = value
        elif old[key] != value:
            change[key] = _change(old[key], value)
    return change


def _compact(full: dict[str, Any]) -> str:
    lines: list[str] = []
    before: dict[str, Any] = {}
    for release in full["versions_order"]:
        whole = full["versions"][release]
        table = {"wheel": whole["source"]["wheel"], **{part: whole[part] for part in PARTS}}
        change = json.dumps(_change(before, table), separators=(",", ":"), sort_keys=True)
        lines.append(f"{json.dumps(release)}:{change}")
        before = table
    return '{"schema":"trtpack.tests.trt_api/1","releases":{\n' + ",\n".join(lines) + "\n}}\n"


if __name__ == "__main__":
    print(_compact(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
