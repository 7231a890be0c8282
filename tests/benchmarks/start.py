#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long ``trtpack --help`` takes beside a bare ``import click``, with a margin of 0.3 s, and
``import trtpack_runtime`` beside a bare Python, with one of 60 ms.

python tests/benchmarks/start.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

MARGIN_SECONDS = 0.3
RUNTIME_MARGIN_SECONDS = 0.06
COMMANDS = {
    "python": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import trtpack": ["-c", "import trtpack"],
    "import trtpack_runtime": ["-c", "import trtpack_runtime"],
    "trtpack --help": ["-m", "trtpack_runtime", "--help"],
}


def main() -> None:
    """Prints the median of each; exits 1 where one is over its margin."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, seconds in medians.items():
        print(f"{seconds * 1000:6.0f} ms  {name}")
    over = medians["trtpack --help"] - medians["import click"]
    print(f"the help takes {over * 1000:.0f} ms more than click; the margin is 300 ms")
    runtime = medians["import trtpack_runtime"] - medians["python"]
    print(f"the runtime takes {runtime * 1000:.0f} ms more than Python; the margin is 60 ms")
    sys.exit(over > MARGIN_SECONDS or runtime > RUNTIME_MARGIN_SECONDS)


if __name__ == "__main__":
    main()
