# SPDX-License-Identifier: Apache-2.0
"""Compares a run with a previous one's ``--json``: what got worse, what better, what is not alike.

A latency counts as changed where its median moved by more than the tolerance *and* the middle
halves of the two runs' calls lie apart, so that what differs from run to run anyway is no news.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checked_json import MalformedError, Place, parse
from .errors import ConfigError

SCHEMA = "trtpack.run/1"
WORSE, BETTER, SAME, CHANGED = "worse", "better", "same", "changed"

MEMORY_FLOOR = 16_000_000
"""Bytes of memory that differ from run to run anyway."""

ERROR_FACTOR = 2.0
"""By how much an error must have grown to count, where it is more than one step of its type."""

_STEPS = {"float64": 2.2e-16, "float32": 1.2e-7, "float16": 9.8e-4, "bfloat16": 7.8e-3}
_RANKS = {"tensorrt": 2, "tensorrt-rtx": 2, "inductor": 1}
_LABELS = {
    "device": "device",
    "memory_bytes": "memory",
    "driver": "driver",
    "cuda": "CUDA of the driver",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "torch": "PyTorch",
    "runtime": "trtpack-runtime",
    "jetpack": "JetPack",
    "l4t": "L4T",
    "power_mode": "power mode",
    "arch": "architecture",
}


@dataclass(frozen=True)
class Change:
    """One thing that both runs have.

    Args:
        kind: ``latency``, ``memory``, ``golden`` or ``engine``.
        method: whose it is; None for the whole run's.
        name: which: ``wall p50``, ``GPU memory``, a sample and its output, a segment.
        before: what it was, in ms, bytes, as an error, or a kind of engine.
        now: what it is.
        verdict: ``worse``, ``better``, ``same``, or ``changed`` where neither can be said.
        text: all of it in words.
    """

    kind: str
    method: str | None
    name: str
    before: Any
    now: Any
    verdict: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """This run beside a previous one.

    Args:
        previous: the file.
        tolerance: the part by which a figure may differ.
        unlike: what of machine and settings differs, so that figures are not like with like.
        changes: everything compared.
        notes: what could not be compared, and that the bundle was built again.
    """

    previous: Path
    tolerance: float
    unlike: tuple[str, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> list[Change]:
        """What got worse."""
        return [change for change in self.changes if change.verdict == WORSE]

    @property
    def better(self) -> list[Change]:
        """What got better."""
        return [change for change in self.changes if change.verdict == BETTER]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "previous": str(self.previous),
            "tolerance_percent": self.tolerance * 100,
            "passed": not self.worse,
            "like_with_like": not self.unlike,
            "differences": list(self.unlike),
            "changes": [asdict(change) for change in self.changes],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Previous:
    """A previous run's report, as far as it is read before this run has figures."""

    path: Path
    top: Place


def read_previous(path: Path, name: str) -> Previous:
    """Reads a previous run's ``--json``.

    Args:
        path: the file.
        name: the model's name in the bundle that runs now.

    Raises:
        ConfigError: it is no such report, or one of another bundle.
    """
    try:
        top = Place(parse(path.read_bytes()))
        if top["schema"].string() != SCHEMA:
            top["schema"].wrong(SCHEMA)
        was = top["bundle"]["name"].string()
        top["machine"].object()
        top["methods"].mapping(Place.object)
    except (MalformedError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(
            f"{path} is no report of trtpack run: {reason}",
            hint="write one with: trtpack run BUNDLE --json > previous.json",
        ) from error
    if was != name:
        raise ConfigError(
            f"{path} is of another bundle: of {was!r}, this one is of {name!r}",
            hint="compare runs of one model",
        )
    return Previous(path, top)


def compare(now: Mapping[str, Any], previous: Previous, tolerance: float) -> Comparison:
    """Compares a report (``RunReport.to_json``) with a previous one.

    Args:
        now: this run's.
        previous: the other's.
        tolerance: the part by which latency and memory may grow.

    Raises:
        ConfigError: the previous report has a value out of place.
    """
    notes: list[str] = []
    try:
        top = previous.top
        unlike = tuple(_unlike(now, top))
        if now["bundle"]["digest"] != top["bundle"]["digest"].string():
            notes.append("the bundle was built again since")
        changes = list(_memory(now, top, tolerance, notes))
        for method, found in now["methods"].items():
            before = top["methods"].get(method)
            if before is None:
                notes.append(f"{method}() was not run then")
                continue
            changes += _engines(method, found, before, notes)
            changes += _golden(method, found, before, notes)
            changes += _latency(method, found, before, tolerance, notes)
    except MalformedError as error:
        raise ConfigError(
            f"{previous.path} is no report of trtpack run: {error}",
            hint="write one with: trtpack run BUNDLE --json > previous.json",
        ) from error
    return Comparison(previous.path, tolerance, unlike, tuple(changes), tuple(notes))


def _unlike(now: Mapping[str, Any], top: Place) -> Iterator[str]:
    machine = top["machine"].object()
    for key, label in _LABELS.items():
        was, has = machine.get(key), now["machine"].get(key)
        if was != has:
            yield f"{label} {_said(has)}, was {_said(was)}"
    if now["variant"] != (was := top["variant"].string()):
        yield f"variant {now['variant']}, was {was}"
    settings = top["settings"].object()
    for key in sorted({*settings, *now["settings"]}):
        if settings.get(key) != now["settings"].get(key):
            label = key.replace("_", " ")
            yield f"{label} {_said(now['settings'].get(key))}, was {_said(settings.get(key))}"


def _memory(
    now: Mapping[str, Any], top: Place, tolerance: float, notes: list[str]
) -> Iterator[Change]:
    before, found = top.get("memory"), now.get("memory")
    if before is None or found is None:
        return
    for key, name in (("gpu_bytes", "GPU memory"), ("host_bytes", "main memory")):
        was, has = before.get(key), found.get(key)
        if was is None or has is None:
            continue
        if key == "gpu_bytes" and before.object().get("gpu_source") != found.get("gpu_source"):
            notes.append("GPU memory was measured in another way then")
            continue
        size = was.integer()
        apart = abs(has - size) > max(tolerance * size, MEMORY_FLOOR)
        verdict = SAME if not apart else WORSE if has > size else BETTER
        text = f"{name} {has / 1e6:.0f} MB, was {size / 1e6:.0f} MB{_percent(size, has)}"
        yield Change("memory", None, name, size, has, verdict, text)


def _engines(
    method: str, found: Mapping[str, Any], before: Place, notes: list[str]
) -> Iterator[Change]:
    was = {s["name"].string(): s["engine"].string() for s in before["segments"].items()}
    has = {segment["name"]: segment["engine"] for segment in found["segments"]}
    if was.keys() != has.keys():
        notes.append(f"{method}() has other segments than then")
    for name in has.keys() & was.keys():
        ranks = _RANKS.get(was[name], 0), _RANKS.get(has[name], 0)
        verdict = CHANGED if was[name] != has[name] else SAME
        if ranks[0] != ranks[1]:
            verdict = WORSE if ranks[1] < ranks[0] else BETTER
        text = f"{name} runs on {_engine(has[name])}, was {_engine(was[name])}"
        yield Change("engine", method, name, was[name], has[name], verdict, text)


def _golden(
    method: str, found: Mapping[str, Any], before: Place, notes: list[str]
) -> Iterator[Change]:
    smoke = before.get("smoke")
    if smoke is None or found["smoke"] is None:
        return
    was = {(o["sample"].string(), o["output"].string()): o for o in smoke["outputs"].items()}
    for output in found["smoke"]["outputs"]:
        key = (output["sample"], output["output"])
        if key not in was:
            notes.append(f"{' '.join(key)} was not compared then")
            continue
        yield _one_golden(method, " ".join(key), output, was[key])


def _one_golden(method: str, name: str, output: Mapping[str, Any], before: Place) -> Change:
    floating = output["dtype"].startswith(("float", "bfloat", "complex"))
    figure, label = (
        ("rel_l2", "relative L2 error") if floating else ("differing", "elements that differ")
    )
    metrics = before.get("metrics")
    was = float("inf") if metrics is None else _figure(metrics[figure])
    has = float("inf") if output["metrics"] is None else float(output["metrics"][figure])
    failed = before.get("failure") is not None, output["failure"] is not None
    verdict = SAME
    if failed[0] != failed[1]:
        verdict = WORSE if failed[1] else BETTER
    elif _grew(was, has, output["dtype"], floating):
        verdict = WORSE
    elif _grew(has, was, output["dtype"], floating):
        verdict = BETTER
    text = f"{name}: {label} {has:.3g}, was {was:.3g}"
    return Change("golden", method, name, _plain(was), _plain(has), verdict, text)


def _grew(was: float, has: float, dtype: str, floating: bool) -> bool:
    if not floating or was == has:
        return has > was
    return has > ERROR_FACTOR * was and has - was > _STEPS.get(dtype, 0.0)


def _latency(
    method: str,
    found: Mapping[str, Any],
    before: Place,
    tolerance: float,
    notes: list[str],
) -> Iterator[Change]:
    latency, now = before.get("latency"), found["latency"]
    if latency is None or now is None:
        return
    shapes = [(i["name"].string(), i["dtype"].string(), i["shape"].value)
              for i in before["inputs"].items()]  # fmt: skip
    if shapes != [(i["name"], i["dtype"], i["shape"]) for i in found["inputs"]]:
        notes.append(f"{method}() was timed with other inputs then")
        return
    for key, name in (("wall", "latency p50"), ("gpu", "GPU time p50")):
        figures, has = latency.get(key), now[key]
        if figures is None or has is None:
            continue
        p25, p50, p75 = (_above_0(figures[f"{p}_ms"]) for p in ("p25", "p50", "p75"))
        verdict = SAME
        if has["p50_ms"] > p50 * (1 + tolerance) and has["p25_ms"] > p75:
            verdict = WORSE
        elif has["p50_ms"] < p50 / (1 + tolerance) and has["p75_ms"] < p25:
            verdict = BETTER
        text = f"{method}() {name} {has['p50_ms']:.4g} ms, was {p50:.4g} ms"
        text += _percent(p50, has["p50_ms"])
        yield Change("latency", method, name, p50, has["p50_ms"], verdict, text)


def _figure(place: Place) -> float:
    """A figure; one that is not finite stands as text."""
    try:
        return float(place.value)
    except (TypeError, ValueError):
        place.wrong("a number")


def _above_0(place: Place) -> float:
    value = place.value
    if type(value) not in (int, float) or value <= 0:
        place.wrong("a number above 0")
    return float(value)


def _plain(value: float) -> float | str:
    return value if value < float("inf") else repr(value)


def _percent(was: float, has: float) -> str:
    return f" ({(has / was - 1) * 100:+.1f} %)" if was else ""


def _engine(kind: str) -> str:
    return kind if kind in _RANKS else f"PyTorch ({kind})"


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
