#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Peak anonymous memory of building and loading BERT-base, per process, against its weights.

    python tests/benchmarks/memory.py [--target NAME]... [--layers N]

Builds the model once per target in a process of its own and watches RssAnon of that process and all
it starts. What counts is the memory above an interpreter that has imported torch, as a multiple of
the weights; the bar is 2.5. Then loads the bundle and tells what that added, anonymous and mapped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR = 2.5
PAUSE_SECONDS = 0.02

LOAD = """
import json, sys, torch, trtpack_runtime
def rss(kind):
    for line in open("/proc/self/status"):
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
before = rss("RssAnon"), rss("RssFile")
model = trtpack_runtime.load(sys.argv[1], trust=True)
loaded = rss("RssAnon"), rss("RssFile")
model.smoke().raise_for_failure()
run = rss("RssAnon"), rss("RssFile")
print(json.dumps([before, loaded, run]))
"""


def main() -> None:
    """Measures, prints the table, exits 1 where a process is over the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", action="append", help="default: cpu, rtx-4090, orin")
    parser.add_argument("--layers", type=int, default=12, help="encoder layers, 12 in BERT-base")
    arguments = parser.parse_args()
    bare = anonymous_of([sys.executable, "-c", "import torch, time; time.sleep(1)"])
    base = max(bare.values())
    print(f"an interpreter with torch: {mega(base)} anonymous")
    over = False
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "bert")
        model.mkdir()
        config = {
            "model_type": "bert",
            "architectures": ["BertModel"],
            "num_hidden_layers": arguments.layers,
        }
        Path(model, "config.json").write_text(json.dumps(config))
        for target in arguments.target or ("cpu", "rtx-4090", "orin"):
            bundle = Path(folder, f"{target}.tar")
            peaks = build(model, target, bundle, Path(folder, "cache", target))
            weights = weight_bytes(bundle)
            print(f"\n{target}: weights {mega(weights)}")
            for process, peak in sorted(peaks.items(), key=lambda item: -item[1]):
                ratio = max(peak - base, 0) / weights
                over |= ratio > BAR
                print(f"  {mega(peak):>9} anonymous, {ratio:4.2f} x above torch  {process}")
            report_load(bundle)
            bundle.unlink()
    print(f"\n{'OVER' if over else 'within'} the bar of {BAR} x the weights")
    sys.exit(over)


def build(model: Path, target: str, bundle: Path, cache: Path) -> dict[str, int]:
    """Peak anonymous bytes by process of ``trtpack build``."""
    command = [sys.executable, "-m", "trtpack_runtime", "build", f"hf:{model}"]
    command += ["--target", target, "--output", str(bundle), "--quiet"]
    return anonymous_of(command, {**os.environ, "XDG_CACHE_HOME": str(cache)})


def anonymous_of(command: list[str], environment: dict[str, str] | None = None) -> dict[str, int]:
    """Runs a command and answers the peak RssAnon, in bytes, of each process it consists of."""
    process = subprocess.Popen(command, env=environment)
    peaks: dict[str, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            anonymous, name = look_at(pid)
            peaks[name] = max(peaks.get(name, 0), anonymous)
        time.sleep(PAUSE_SECONDS)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    peaks.pop("", None)
    return peaks


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``; those that end meanwhile are left out."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass
    return found


def look_at(pid: int) -> tuple[int, str]:
    """RssAnon in bytes and a short name; nothing of a process that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return 0, ""
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon:"))
    anonymous = next((int(line[1]) * 1024 for line in lines), 0)
    if "-m" in words:
        return anonymous, "python -m " + " ".join(words[words.index("-m") + 1 :][:2])
    return anonymous, Path(words[0]).name


def weight_bytes(bundle: Path) -> int:
    """Bytes of the bundle's weight store."""
    from trtpack_runtime.bundle import open_bundle

    return sum(view.nbytes for view in open_bundle(bundle).weights.values())


def report_load(bundle: Path) -> None:
    """Loads and proves the bundle in a fresh process and prints what that added."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(bundle)],
        check=True,
        capture_output=True,
        text=True,
    )
    before, loaded, run = json.loads(answer.stdout.splitlines()[-1])
    for what, now in (("loading", loaded), ("loading and a smoke test", run)):
        print(
            f"  {what} added {mega(now[0] - before[0])} anonymous, "
            f"{mega(now[1] - before[1])} mapped"
        )


def mega(nbytes: int) -> str:
    """``440 MB``."""
    return f"{nbytes / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
