# SPDX-License-Identifier: Apache-2.0
"""What TensorRT says in its log of the memory that an engine will take.

Source: lines of severity INFO at the end of a build, the same from TensorRT 8.6 to TensorRT-RTX:
``Total Weights Memory: 320 bytes``. Those of activations include scratch memory, and are what an
execution context asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIGURE = re.compile(r"Total (Weights|Activation|Device Persistent) Memory: (\d+)")


def memory_of(log: Iterable[str]) -> dict[str, int]:
    """``weights_bytes``, and ``context_bytes`` of one execution context; each where it is told.

    A build of several profiles tells some more than once: the largest counts.
    """
    most: dict[str, int] = {}
    for line in log:
        for what, count in _FIGURE.findall(line):
            most[what] = max(most.get(what, 0), int(count))
    found = {}
    if "Weights" in most:
        found["weights_bytes"] = most["Weights"]
    if "Activation" in most:
        found["context_bytes"] = most["Activation"] + most.get("Device Persistent", 0)
    return found
