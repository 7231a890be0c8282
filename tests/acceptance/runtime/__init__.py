# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/gpu_runtime_bench`` measures of the runtime on a machine with an NVIDIA GPU.

A part is a module of this package with a ``TITLE`` and ``rows(settings) -> Iterator[Row]``; it runs
in a process of its own, and its rows are kept as they come. Its name is a line of ``PARTS``.
"""

from __future__ import annotations

PARTS = (
    "overhead",
    "resnet",
    "session",
    "start",
    "soak",
    "faults",
    "portable",
)
"""The parts in the order in which they run and stand on the page."""
