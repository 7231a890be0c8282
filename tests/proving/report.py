# SPDX-License-Identifier: Apache-2.0
"""What a run of proofs found, for people and as the data that layers.py reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from tests.proving.proof import Result
from trtpack_runtime.dtypes import DTYPES

STATES = ("passed", "built", "failed", "skipped")


def text(results: Mapping[str, Result]) -> str:
    """A row for each subject, then every failure with its reason, then the reasons to skip."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results.values():
        rows[result["subject"]][result["state"]] += 1
    width = max(map(len, (*rows, "in all")), default=0)
    states = [s for s in STATES if s != "built" or any(row[s] for row in rows.values())]
    lines = [" " * width + "".join(f"{state:>9}" for state in states)]
    total: Counter[str] = Counter()
    for subject, row in sorted(rows.items()):
        lines.append(f"{subject:{width}}" + "".join(f"{row[s] or '-':>9}" for s in states))
        total += row
    lines.append(f"{'in all':{width}}" + "".join(f"{total[s]:>9}" for s in states))
    failed = {name: r for name, r in results.items() if r["state"] == "failed"}
    if failed:
        lines += ["", "failed:", *(f"  {name}\n    {r['why']}" for name, r in failed.items())]
    reasons = Counter(r["why"] for r in results.values() if r["state"] == "skipped")
    if reasons:
        lines += ["", "skipped:", *(f"  {n:4} {why}" for why, n in reasons.most_common())]
    return "\n".join(lines)


def proved(
    known: Mapping[str, Any], results: Mapping[str, Result], release: str
) -> dict[str, dict[str, Any]]:
    """``known`` (kind -> release -> types and cases) with what this release's results prove.

    A kind is proved where some of its trials passed and none failed. TensorRT 8 runs INT64 as
    INT32, so it proves nothing about that.
    """
    narrow = int(release.split()[1].split(".")[0]) < 10 and release.startswith("tensorrt ")
    found: dict[str, dict[str, Any]] = {
        kind: {r: v for r, v in entries.items() if r != release} for kind, entries in known.items()
    }
    for kind in {result["subject"] for result in results.values()}:
        own = [result for result in results.values() if result["subject"] == kind]
        passed = [result for result in own if result["state"] == "passed"]
        if passed and not any(result["state"] in ("failed", "built") for result in own):
            types = {result["dtype"] for result in passed} - ({"INT64"} if narrow else set())
            entry = {"types": [t for t in DTYPES if t in types], "cases": len(passed)}
            found.setdefault(kind, {})[release] = entry
    return {kind: dict(sorted(v.items())) for kind, v in sorted(found.items()) if v}
