# SPDX-License-Identifier: Apache-2.0
"""How much memory is free where a module is to run, and whether the module fits there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import Bundle
from .device import memory
from .engine_file import OwnFile
from .errors import DeviceError
from .memory_plan import CUDA_BYTES, MemoryPlan, memory_plan
from .resolve import Choice

if TYPE_CHECKING:
    import torch

CONTEXTS = 4
"""How many execution contexts an engine may have, unless said otherwise."""

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class TrimmedWarning(UserWarning):
    """A module runs with less than was asked for, since memory is short."""


def within_memory(
    bundle: Bundle,
    choice: Choice,
    own: Mapping[str, OwnFile],
    avoided: Mapping[str, str],
    device: torch.device,
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[MemoryPlan, dict[str, Any]]:
    """What a module will take, and its options trimmed to the memory that is free.

    Raises:
        DeviceError: there is surely too little; it says how much it wants and how much there is.
    """
    import torch

    on_gpu = device.type == "cuda"
    wanted = int(options.get("contexts") or CONTEXTS)
    plan = memory_plan(
        bundle,
        choice,
        own,
        avoided,
        on_gpu=on_gpu,
        contexts=wanted,
        cuda_bytes=CUDA_BYTES if on_gpu and not torch.cuda.is_initialized() else 0,
    )
    free = free_bytes(device, facts)
    if free is None:
        return plan, dict(options)
    return fitted(plan, free, options, "GPU memory" if on_gpu else "memory", choice.variant)


def fitted(
    plan: MemoryPlan, free: int, options: Mapping[str, Any], what: str, variant: str
) -> tuple[MemoryPlan, dict[str, Any]]:
    """A plan and options that fit into ``free`` bytes; raises as ``within_memory``."""
    if plan.least_bytes > free:
        largest = max(plan.parts, key=lambda part: part.nbytes)
        raise DeviceError(
            f"{variant} wants {text(plan.least_bytes)} of {what}, {text(free)} are free; most of "
            f"it is for {largest.what} ({text(largest.nbytes)})",
            hint="end other programs that use it, or build for smaller shapes, or in half "
            "precision; --no-memory-check tries all the same",
        )
    trimmed = plan.within(free)
    changed = dict(options)
    if trimmed.contexts < plan.contexts:
        changed["contexts"] = trimmed.contexts
        _trim(f"engines have {trimmed.contexts} contexts instead of {plan.contexts}", what, free)
    if plan.predicted_bytes > free and options.get("cuda_graphs") not in (None, False, "off"):
        changed["cuda_graphs"] = "off"
        _trim("CUDA graphs are off", what, free)
    return trimmed, changed


def free_bytes(device: torch.device, facts: Mapping[str, Any]) -> int | None:
    """The memory that is free for a module; None where nobody tells.

    A GPU that shares the host's memory has what the host can give; what PyTorch holds and does not
    use is free.
    """
    import torch

    if device.type == "cpu":
        return memory().available_bytes or None
    if device.type != "cuda":
        return None
    integrated = any(gpu.get("integrated") for gpu in facts.get("gpus", ())[:1])
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if integrated:
        return memory().available_bytes + held
    return int(torch.cuda.mem_get_info(device)[0]) + held


def used_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """What is taken now: on a GPU by all programs, on a CPU by this process and not mapped from a
    file; None where nobody tells."""
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free)
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(sizes[0]) * 1024 if device.type == "cpu" and sizes else None


def text(count: int) -> str:
    """``1.5 GiB``."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _trim(done: str, what: str, free: int) -> None:
    warnings.warn(f"{done}: only {text(free)} of {what} are free", TrimmedWarning, stacklevel=2)
