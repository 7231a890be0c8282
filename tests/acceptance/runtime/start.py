# SPDX-License-Identifier: Apache-2.0
"""How long it takes from nothing to an answer, each time in a process of its own."""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.runtime.row import Row, Settings, at_most
from trtpack.runtime_wheel import wheel

TITLE = "Start"
MAX_IMPORT_MS = 60.0
MAX_INSTALLED_KB = 400.0
MODEL = "resnet50/1"
MIB = 1 << 20


def rows(settings: Settings) -> Iterator[Row]:
    """The import, the size on disk, and the starts of a ResNet-50."""
    rounds = 5 if settings.quick else 25
    if settings.wants("import"):
        yield imported(_medians({"python": "pass", "import": "import trtpack_runtime"}, rounds))
    if settings.wants("installed"):
        content = wheel("trtpack-runtime", "trtpack_runtime").source
        assert isinstance(content, bytes)
        yield installed(len(content), _unpacked_bytes(content))
    for start in ("full", "fast"):
        name = f"{MODEL}, {start} start"
        if settings.wants(name):
            bundle = _bundle(settings)
            found = [_first_answer(bundle, settings.device, start) for _ in range(_runs(settings))]
            yield started(name, found)


def imported(ms: Mapping[str, float]) -> Row:
    """The row of the import, by the medians in milliseconds."""
    extra = ms["import"] - ms["python"]
    bar = at_most("import trtpack_runtime beyond a bare Python", extra, MAX_IMPORT_MS, "ms")
    return Row("import", {"bare, ms": ms["python"], "import, ms": ms["import"]}, (bar,))


def installed(packed: int, unpacked: int) -> Row:
    """The row of the bytes on a device: of the wheel that a bundle brings, from which it runs as it
    is, and of that unpacked by pip."""
    sizes = {"wheel, kB": packed / 1000, "unpacked, kB": unpacked / 1000}
    bars = (
        at_most("trtpack_runtime, run from its wheel", sizes["wheel, kB"], MAX_INSTALLED_KB, "kB"),
        at_most("trtpack_runtime, unpacked by pip", sizes["unpacked, kB"], MAX_INSTALLED_KB, "kB"),
    )
    return Row("installed", sizes, bars)


def started(name: str, found: Sequence[Mapping[str, Any]]) -> Row:
    """The row of one way to start: the medians of each step, the first process left out.

    That one reads the bundle and the libraries from the disk.
    """
    warm = found[1:] or found
    steps = list(warm[0]["seconds"])
    figures: dict[str, float | int | str] = {
        f"{step}, ms": statistics.median(one["seconds"].get(step, 0.0) for one in warm) * 1000
        for step in steps
    }
    memory = warm[-1]["memory"] or {}
    for what in ("predicted", "measured"):
        if memory.get(f"{what}_bytes") is not None:
            figures[f"{what}, MiB"] = memory[f"{what}_bytes"] / MIB
    kinds = ", ".join(warm[-1]["kinds"])
    first = found[0]["seconds"]["to the first result"]
    note = f"{name}: run by {kinds}; the first process took {first:.2f} s to its first result."
    return Row(name, figures, notes=(note,))


def _runs(settings: Settings) -> int:
    return 2 if settings.quick else 6


def _medians(codes: Mapping[str, str], rounds: int) -> dict[str, float]:
    """Milliseconds that ``python -c`` takes for each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def _unpacked_bytes(content: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sum(info.file_size for info in archive.infolist())


def _first_answer(bundle: Path, device: str, start: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.runtime.first_answer", bundle, device, start],
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _bundle(settings: Settings) -> Path:
    """A ResNet-50 for this machine, built once; on a CPU one that PyTorch runs."""
    from tests.acceptance.packaging import livened, packaged
    from tests.acceptance.rows import ROWS

    path = settings.folder / f"resnet50-{settings.device}.tar"
    if not path.exists():
        module, args = livened(next(row for row in ROWS if row.name == MODEL))
        if settings.device == "cuda":
            packaged(module, args, path)
        else:
            import trtpack

            made = (module.float(), tuple(value.float() for value in args))
            options = trtpack.Options(targets=("cpu",), output=path, engine="reference")
            trtpack.build(made, options=options)
    return path
