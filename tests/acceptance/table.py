# SPDX-License-Identifier: Apache-2.0
"""Judges the measured rows and writes them as a table, for a terminal or for the documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIN_COSINE = 0.999
MIN_MEAN_SPEEDUP = 3.0
MIN_SHARE_FASTER = 0.8
MAX_DYNAMIC_COST = 1.15
MIN_TACTICS_GAIN = 4.0
MAX_CACHED_SECONDS = 2.0
MIN_INT8_COSINE = 0.99
PAIRS = {"int8": ("int8", "fp16"), "sparse": ("sparse", "dense")}
PAIRS_ARE = (
    "Two engines of one model: `int8` is calibrated on random images and held against eager in",
    "float32; `sparse` and `dense` have the same weights in float16, two of every four zero.",
)
COLUMNS = ("trtpack", "cuda_graph", "eager", "channels_last", "reduce_overhead")

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One demand on the whole table: what was wanted, what was found, and whether it holds."""

    text: str
    found: str
    holds: bool


def bars(results: Results) -> list[Bar]:
    """Every demand that the rows at hand can answer."""
    judged = []
    rows = _measured(results, "latency")
    if rows:
        judged += _latency_bars(rows)
    for name, row in _measured(results, "dynamic").items():
        worst, cost = min(row["cosines"].values()), _ratio(row, "dynamic", "static")
        sizes = ", ".join(row["cosines"])
        judged += [
            Bar(
                f"{name}: cosine at batch {sizes} >= {MIN_COSINE}",
                f"{worst:.5f}",
                worst >= MIN_COSINE,
            ),
            Bar(
                f"{name}: dynamic within 15 % of static",
                f"{cost:.2f} x",
                cost <= MAX_DYNAMIC_COST,
            ),
        ]
    for name, row in _measured(results, "caches").items():
        seconds = row["build_seconds"]
        gain = seconds["none"] / seconds["tactics"]
        judged += [
            Bar(
                f"{name}: >= {MIN_TACTICS_GAIN:g} x faster with the tactic cache",
                f"{gain:.1f} x ({_from_to(seconds)}{_whole(row)})",
                gain >= MIN_TACTICS_GAIN,
            ),
            Bar(
                f"{name}: under {MAX_CACHED_SECONDS:g} s with the build cache",
                f"{seconds['engine']:.2f} s",
                seconds["engine"] < MAX_CACHED_SECONDS,
            ),
        ]
    for name, row in _measured(results, "int8").items():
        close, gain = row["cosines"]["int8"], _ratio(row, "fp16", "int8")
        judged += [
            Bar(
                f"{name}: cosine with float32 >= {MIN_INT8_COSINE}",
                f"{close:.5f}",
                close >= MIN_INT8_COSINE,
            ),
            Bar(f"{name}: faster than its float16 engine", f"{gain:.2f} x", gain > 1),
        ]
    return judged


def _latency_bars(rows: Results) -> list[Bar]:
    worst = min(rows, key=lambda name: rows[name]["cosine"])
    speedups = {name: _ratio(row, "eager", "trtpack") for name, row in rows.items()}
    slowest = min(speedups, key=speedups.__getitem__)
    mean = math.exp(sum(map(math.log, speedups.values())) / len(speedups))
    faster = [name for name, row in rows.items() if _to_reduce_overhead(row) > 1]
    share = len(faster) / len(rows)
    return [
        Bar(
            f"cosine with eager >= {MIN_COSINE} on every model",
            f"{rows[worst]['cosine']:.5f} ({worst})",
            rows[worst]["cosine"] >= MIN_COSINE,
        ),
        Bar(
            "faster than eager on every model",
            f"at least {speedups[slowest]:.2f} x ({slowest})",
            speedups[slowest] > 1,
        ),
        Bar(
            f"geometric mean of the speedups >= {MIN_MEAN_SPEEDUP:g} x",
            f"{mean:.2f} x over {len(rows)} rows",
            mean >= MIN_MEAN_SPEEDUP,
        ),
        Bar(
            f"faster than reduce-overhead on >= {MIN_SHARE_FASTER:.0%} of them",
            f"{len(faster)} of {len(rows)}",
            share >= MIN_SHARE_FASTER,
        ),
    ]


def table(results: Results) -> list[list[str]]:
    """The latency rows as cells, the head first."""
    head = ["model", "input", "trtpack", "CUDA graph", "eager", "channels last", "reduce-overhead"]
    head += ["to eager", "to r.-o.", "cosine"]
    cells = [head]
    for name, row in _measured(results, "latency").items():
        times = row["latency_ms"]
        cells.append(
            [
                name.partition("/")[0],
                row["shape"],
                *(f"{times[key]:.3f} ms" if key in times else "" for key in COLUMNS),
                f"{_ratio(row, 'eager', 'trtpack'):.2f} x",
                f"{_to_reduce_overhead(row):.2f} x",
                f"{row['cosine']:.5f}",
            ]
        )
    return cells


def pairs(results: Results) -> list[list[str]]:
    """The rows of two engines of one model as cells, the head first; the first is the newer way."""
    cells = [["model", "input", "engine", "latency", "the other", "latency", "gain", "cosine"]]
    for kind, names in PAIRS.items():
        for name, row in _measured(results, kind).items():
            times = row["latency_ms"]
            beside = [cell for key in names for cell in (key, f"{times[key]:.3f} ms")]
            gain = f"{_ratio(row, names[1], names[0]):.2f} x"
            close = f"{row['cosines'][names[0]]:.5f}"
            cells.append([name.partition("/")[0], row["shape"], *beside, gain, close])
    return cells


def text(results: Results) -> str:
    """For a terminal."""
    lines = _aligned(table(results))
    beside = pairs(results)
    lines += ["", *_aligned(beside)] if beside[1:] else []
    lines += ["", *(f"{'ok  ' if b.holds else 'FAIL'}  {b.text}: {b.found}" for b in bars(results))]
    lines += [f"FAIL  {name}: {row['error']}" for name, row in results.items() if "error" in row]
    return "\n".join(line.rstrip() for line in lines)


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]


def _rows(cells: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]


def figures(
    machine: Mapping[str, str], results: Results, order: Sequence[str], known: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page is written from: the rows of ``results`` that did not fail, and those ``known``
    from before that it lacks, where they are of the same GPU and TensorRT."""
    before = known.get("machine", {})
    same = all(before.get(what) == machine[what] for what in ("GPU", "TensorRT"))
    rows = dict(known["rows"]) if same else {}
    rows |= {name: row for name, row in results.items() if "error" not in row}
    missing = [name for name in order if name not in rows]
    return {
        "machine": dict(machine),
        "rows": {name: rows[name] for name in order if name in rows},
        "missing": missing,
    }


def markdown(figures: Mapping[str, Any]) -> str:
    """The page of the documentation: ``machine`` facts, measured ``rows``, names of those
    ``missing``."""
    results = figures["rows"]
    beside = pairs(results)
    facts = [f"- {key}: {value}" for key, value in figures["machine"].items()]
    found = [f"| {b.text} | {b.found} | {'yes' if b.holds else 'no'} |" for b in bars(results)]
    missing = [f"Not measured yet: {', '.join(figures['missing'])}.", ""]
    return "\n".join(
        [
            "# TensorRT engines beside PyTorch",
            "",
            "Written by `scripts/gpu_acceptance --write`. Every model is in float16 with livened",
            "random weights, packaged with `--target native`, and loaded from its bundle. A",
            "latency is the median of a synchronised call of the whole module, measured in turns",
            "with the others in one process; cuDNN chose its algorithms by benchmark. `CUDA graph`",
            "is the same bundle loaded with `cuda_graphs=True`. *to eager* compares plain calls,",
            "*to r.-o.* compares the CUDA graph, where it was measured, with",
            '`torch.compile(mode="reduce-overhead")`, which replays CUDA graphs too. A row stays',
            "until it is measured again: compare within rows, not between them.",
            "",
            *facts,
            "",
            *_rows(table(results)),
            "",
            *([*PAIRS_ARE, "", *_rows(beside), ""] if beside[1:] else []),
            *(missing if figures["missing"] else []),
            "| demand, over the rows above | found | holds |",
            "| --- | --- | --- |",
            *found,
            "",
        ]
    )


def _from_to(seconds: Mapping[str, float]) -> str:
    return f"{seconds['none']:.1f} s to {seconds['tactics']:.1f} s"


def _whole(row: Mapping[str, Any]) -> str:
    """What the caller of a build waited for, where that was measured too."""
    whole = row.get("whole_seconds")
    return f"; the whole command {_from_to(whole)}" if whole else ""


def _measured(results: Results, kind: str) -> Results:
    return {
        name: row for name, row in results.items() if row.get("kind") == kind and "error" not in row
    }


def _to_reduce_overhead(row: Mapping[str, Any]) -> float:
    """How much faster, graph beside graph; the plain call stands in where none was measured."""
    own = "cuda_graph" if "cuda_graph" in row["latency_ms"] else "trtpack"
    return _ratio(row, "reduce_overhead", own)


def _ratio(row: Mapping[str, Any], slow: str, fast: str) -> float:
    times = row["latency_ms"]
    return float(times[slow] / times[fast])
