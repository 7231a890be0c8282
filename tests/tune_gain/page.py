# SPDX-License-Identifier: Apache-2.0
"""What was found, judged and written as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]

LEAST_MODELS = 5


def line(name: str, found: Mapping[str, Any]) -> str:
    """One model for people who wait."""
    if "failed" in found:
        return f"{name:24} failed: {found['failed']}"
    return f"{name:24} {found['usual_ms']:9.3f} ms usual, {_share(found)}, {_flags(found)}"


def is_tuned(found: Mapping[str, Any]) -> bool:
    """Whether other settings were tried than the usual ones."""
    return "failed" not in found and len(found["states"]) > 1


def demands(results: Results) -> list[tuple[str, str, bool]]:
    """What is demanded, what was found, whether it holds."""
    ran = {name: found for name, found in results.items() if is_tuned(found)}
    slower = [name for name, found in ran.items() if _is_slower(found)]
    named = f": {', '.join(slower)}" if slower else ""
    faster = sum(found["shipped"] > 0 for found in ran.values())
    return [
        (f"{LEAST_MODELS} models tuned", str(len(ran)), len(ran) >= LEAST_MODELS),
        ("what is shipped never slower than the usual", f"{len(slower)} slower{named}", not slower),
        ("models that got faster", f"{faster} of {len(ran)}", True),
    ]


def markdown(results: Results, target: str, machine: str) -> str:
    """The page."""
    rows = [
        f"| {name} | {found['usual_ms']:.3f} | {_share(found)} | {_flags(found)} | "
        f"{', '.join(found['states'])} | {found['built_s']:.0f} |"
        for name, found in sorted(results.items())
        if "failed" not in found
    ]
    failed = [f"{n} ({f['failed']})" for n, f in sorted(results.items()) if "failed" in f]
    lines = [
        "# What tuning gains",
        "",
        f"Written by `scripts/tune_gain --write`: `trtpack build -t {target} --tune` on the zoo.",
        "The share is the time of what is shipped to that of the usual settings, in turns after",
        "the search, with the bounds of its median at a confidence of 99 %.",
        "",
        f"Machine: {machine}.",
        "",
        "| model | usual, ms | of the usual time | shipped with | trials | built in, s |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        *([f"Not tuned: {'; '.join(failed)}.", ""] if failed else []),
        *(f"- {what}: {told}" for what, told, _ in demands(results)),
    ]
    return "\n".join(lines) + "\n"


def _is_slower(found: Mapping[str, Any]) -> bool:
    """Whether what is shipped is slower for certain; the usual settings are as fast as they are."""
    return bool(found["shipped"] and found["final"]["of_usual"]["low"] > 1)


def _share(found: Mapping[str, Any]) -> str:
    if found["shipped"]:
        return _interval(found["final"]["of_usual"])
    if found["final"] is not None:
        return f"1 (what had won took {_interval(found['final']['of_usual'])})"
    if not is_tuned(found):
        return "1 (nothing else was tried)"
    nearest = found.get("nearest")
    return f"1 (the nearest {_interval(nearest)})" if nearest else "1 (nothing beat it)"


def _interval(of: Mapping[str, float]) -> str:
    return f"{of['middle']:.3f} ({of['low']:.3f} to {of['high']:.3f})"


def _flags(found: Mapping[str, Any]) -> str:
    return f"`{found['flags']}`" if found["flags"] else "the usual settings"
