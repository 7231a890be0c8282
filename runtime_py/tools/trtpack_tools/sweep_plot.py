# SPDX-License-Identifier: Apache-2.0
"""Draws a sweep: latency, throughput and memory over the size, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.atomic import cannot_write
from trtpack_runtime.errors import ConfigError

if TYPE_CHECKING:
    from .sweeping import Advice, Point

FORMATS = (".svg", ".png", ".pdf")
_LINE, _KNEE = "#1f5fa8", "#c4501b"


def check_plot(path: Path) -> None:
    """Refuses what could not be drawn, before anything is measured.

    Raises:
        ConfigError: another format, no such folder, or no matplotlib.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"cannot draw {path}: no format is called {path.suffix or 'so'}",
            hint=f"let its name end in {', '.join(FORMATS)}",
        )
    if not path.parent.is_dir():
        raise ConfigError(f"cannot draw {path}: there is no folder {path.parent}", hint="make it")
    _figure()


def draw(path: Path, title: str, label: str, points: Sequence[Point], advice: Advice) -> None:
    """Writes the plot; ``label`` is what the sizes are of.

    Raises:
        ConfigError: no matplotlib, or the disk refuses.
    """
    measured = [point for point in points if point.bench is not None]
    sizes = [point.size for point in measured]
    knee = next(point for point in measured if point.size == advice.knee)
    memory = [(p.size, p.memory_bytes / 1e6) for p in measured if p.memory_bytes is not None]
    figure = _figure()(figsize=(7.0, 7.5 if memory else 5.4), layout="constrained")
    parts = figure.subplots(3 if memory else 2, 1, sharex=True)
    for axes in parts:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.axvline(knee.size, color=_KNEE, linestyle="--", linewidth=1)
    walls = [point.bench.wall for point in measured if point.bench is not None]
    parts[0].plot(sizes, [w.p50_ms for w in walls], "o-", color=_LINE, label="p50")
    parts[0].fill_between(
        sizes, [w.p25_ms for w in walls], [w.p99_ms for w in walls], color=_LINE, alpha=0.2,
        label="p25 to p99", linewidth=0,
    )  # fmt: skip
    parts[0].set_ylabel("latency of a call, ms")
    parts[0].legend()
    parts[1].plot(sizes, [point.per_second for point in measured], "o-", color=_LINE)
    parts[1].plot([knee.size], [knee.per_second], "o", color=_KNEE, markersize=10)
    last = knee.size == sizes[-1]
    parts[1].annotate(
        f"knee: {knee.size}",
        (knee.size, 0),  # where the line is not
        textcoords="offset points",
        xytext=(-6 if last else 6, 6),
        horizontalalignment="right" if last else "left",
        color=_KNEE,
    )
    parts[1].set_ylabel("items a second")
    if memory:
        parts[2].plot(*zip(*memory, strict=True), "o-", color=_LINE)
        parts[2].set_ylabel("memory, MB")
        parts[2].set_ylim(0, 1.1 * max(amount for _, amount in memory))
    for axes in parts[:2]:
        axes.set_ylim(bottom=0)
    parts[-1].set_xlabel(label)
    figure.suptitle(title)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise cannot_write(path, error) from error


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "matplotlib, which draws plots, is not installed",
            hint="install it: pip install 'trtpack[plot]', or pip install 'trtpack-tools[plot]'",
        ) from error
    return Figure
