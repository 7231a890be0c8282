# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/jit_zoo`` found, as lines for a terminal and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .verdict import Found, Results, of_mode

MAX_REL_L2 = 1e-3
OURS = ("pytorch", "networks", "dynamic", "inductor")
TORCH = "torch"
"""PyTorch's own backend, which ours are held against."""
WAYS = (*OURS, TORCH)


def is_right(found: Found) -> bool:
    """Whether a model ran and its numbers are PyTorch's."""
    return (
        "error" not in found
        and found.get("rel_l2", 1.0) <= MAX_REL_L2
        and not found.get("differing", 1.0)
    )


def is_engine(found: Found) -> bool:
    """Whether nothing of a model fell back to PyTorch."""
    return not found.get("fallbacks")


def line(key: str, found: Found) -> str:
    """One model for a terminal."""
    name, _, way = key.rpartition("/")
    return f"{name:<32}  {way:<9} {_words(found)}"


def totals(results: Results) -> list[tuple[str, int, int, int, int]]:
    """Of each way: how many models were tried, are right, are right without a fall back, and have
    graph breaks."""
    rows = []
    for way in WAYS:
        tried = [f for f in of_mode(results, way).values() if "not_asked" not in f]
        right = [found for found in tried if is_right(found)]
        whole = sum(map(is_engine, right))
        breaks = sum(1 for found in tried if found.get("breaks"))
        rows.append((way, len(tried), len(right), whole, breaks))
    return rows


def holds(results: Results) -> bool:
    """Whether every model that was tried is right, however PyTorch's own backend compiles it."""
    return all(right == tried for way, tried, right, _, _ in totals(results) if way in OURS)


def beside_torch(results: Results) -> list[tuple[str, int, list[str]]]:
    """Of each of our ways: how many models were tried that PyTorch's own backend answers rightly,
    and which of them are wrong."""
    right = {name for name, found in of_mode(results, TORCH).items() if is_right(found)}
    rows = []
    for way in OURS:
        tried = {n: f for n, f in of_mode(results, way).items() if "not_asked" not in f}
        both = right & tried.keys()
        rows.append((way, len(both), sorted(n for n in both if not is_right(tried[n]))))
    return rows


def text(results: Results) -> str:
    """The totals for a terminal."""
    return "\n".join(
        f"{way}: {right} of {tried} right, {whole} without a fall back, {breaks} with graph breaks"
        for way, tried, right, whole, breaks in totals(results)
        if tried
    )


def markdown(results: Results) -> str:
    """The page of the documentation."""
    names = sorted({key.rpartition("/")[0] for key in results})
    ways = {way: of_mode(results, way) for way in WAYS}
    return "\n".join(
        [
            '# The zoo under `torch.compile(backend="trtpack")`',
            "",
            "Written by `scripts/jit_zoo --write`; run without it, the command prints the same and",
            "writes nothing, and `scripts/jit_zoo resnet18 --networks` tries one model in one way.",
            "",
            "Every model of `tests/zoo`, livened, called under `torch.no_grad()` as Dynamo divides",
            "it, and held against eager PyTorch in float32: shapes, strides, and numbers within a",
            f"relative L2 error of {MAX_REL_L2:g}. *pytorch* is the engine kind `reference` for",
            "the CPU, the lowered graph run by PyTorch; *networks* converts for the target rtx-4090",
            "and runs the TensorRT networks by their evaluator; *dynamic* does that at a second",
            "batch, which Dynamo compiles again for sizes that vary; *inductor* compiles with",
            'AOTInductor; *torch* is PyTorch\'s own `backend="inductor"` without ours, for',
            "comparison. A *fall back* is a graph, or a part of one, that PyTorch runs in an",
            "engine's place, with a warning. An empty cell was not tried: its model has no batch",
            "that varies. Whole numbers have to be equal: one pixel whose two best classes are as",
            "good as alike, so that rounding decides, makes a model wrong.",
            "",
            "| way | tried | right | without a fall back | with graph breaks |",
            "| --- | --- | --- | --- | --- |",
            *(f"| {' | '.join(map(str, row))} |" for row in totals(results)),
            "",
            '| way | of the models that `backend="inductor"` answers rightly | wrong |',
            "| --- | --- | --- |",
            *(
                f"| {way} | {both} | {', '.join(wrong) or 'none'} |"
                for way, both, wrong in beside_torch(results)
            ),
            "",
            "| model | graphs | breaks | " + " | ".join(WAYS) + " |",
            "| --- " * (3 + len(WAYS)) + "|",
            *(
                _row(name, {way: found.get(name, {}) for way, found in ways.items()})
                for name in names
            ),
            "",
            *_reasons(results),
        ]
    )


def _row(name: str, found: Mapping[str, Found]) -> str:
    first: Mapping[str, Any] = next((f for f in found.values() if "graphs" in f), {})
    cells = [name, str(first.get("graphs", "")), str(first.get("breaks", ""))]
    return f"| {' | '.join([*cells, *(_cell(found[way]) for way in WAYS)])} |"


def _cell(found: Found) -> str:
    if not found or "not_asked" in found:
        return ""
    if not is_right(found):
        return "wrong" if "error" not in found else "fails"
    return f"{found['rel_l2']:.1e}" + ("" if is_engine(found) else ", falls back")


def _words(found: Found) -> str:
    if "not_asked" in found:
        return str(found["not_asked"])
    if "error" in found:
        return f"fails: {found['error']}"
    said = "right" if is_right(found) else "WRONG"
    back = "" if is_engine(found) else f"  falls back: {found['fallbacks'][0]}"
    return (
        f"{said}  rel {found['rel_l2']:.1e}  {found['graphs']} graphs  "
        f"{found['breaks']} breaks  {found['seconds']:6.1f} s{back}"
    )


def _reasons(results: Results) -> list[str]:
    lines = []
    for key in sorted(results):
        name, _, way = key.rpartition("/")
        found = results[key]
        said = [found["error"]] if "error" in found else list(found.get("fallbacks", ()))
        if found.get("differing"):
            said.append(f"{found['differing']:.1e} of its whole numbers differ")
        lines += [f"- {name}, {way}: `{reason}`." for reason in said]
    return [*lines, ""] if lines else []
