# SPDX-License-Identifier: Apache-2.0
"""Whether a session fits into the memory that is free, told before its engines are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..bundle import Bundle
from ..device import memory
from ..free_memory import fitted
from ..memory_plan import MemoryPlan, Part, engine_parts
from ..network import Network
from ..picking import Picked
from .cuda import Cuda


def planned(bundle: Bundle, picked: Iterable[tuple[Picked, Network]]) -> MemoryPlan:
    """What engines take: their weights, and one scratch memory, as large as the largest needs."""
    parts, scratch = [], Part("scratch memory", 0)
    for one, portable in picked:
        weights, context = engine_parts(bundle, one, portable)
        parts.append(weights)
        if context.nbytes > scratch.nbytes:
            scratch = Part("scratch memory", context.nbytes, context.certain)
    return MemoryPlan((*parts, scratch))


def checked(plan: MemoryPlan, cuda: Cuda, facts: Mapping[str, Any], variant: str) -> MemoryPlan:
    """The plan with the memory that is free.

    Raises:
        DeviceError: there is surely too little.
    """
    integrated = any(gpu.get("integrated") for gpu in facts.get("gpus", ())[:1])
    free = memory().available_bytes if integrated else cuda.free_bytes()
    return fitted(plan, free, {}, "GPU memory", variant)[0]
