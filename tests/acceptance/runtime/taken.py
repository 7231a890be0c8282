# SPDX-License-Identifier: Apache-2.0
"""GPU memory that this process takes, asked of the driver without torch."""

from __future__ import annotations

import os
import subprocess


def gpu_bytes() -> int:
    """What ``nvidia-smi`` counts for this process; 0 where it does not know of it."""
    done = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=False,
    )
    return of_process(done.stdout, os.getpid())


def of_process(table: str, pid: int) -> int:
    """The bytes of a process in ``nvidia-smi``'s table of MiB."""
    for line in table.splitlines():
        number, _, mebibytes = line.partition(",")
        if number.strip() == str(pid) and mebibytes.strip().isdigit():
            return int(mebibytes) << 20
    return 0
