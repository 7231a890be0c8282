# SPDX-License-Identifier: Apache-2.0
"""Which device PyTorch is to use, and what the machine is like as far as it can be used."""

from __future__ import annotations

from typing import Any

import torch

from .bundle import Bundle
from .device import facts
from .errors import ConfigError, DeviceError
from .resolve import Choice
from .segments import TENSORRT_KINDS

GPU = "cuda"


def facts_for(device: torch.device | None) -> dict[str, Any]:
    """This machine's facts, the GPU that is wanted first; without its GPUs where a device is wanted
    that is none, or where PyTorch cannot use them."""
    here = facts()
    if not here["gpus"]:
        return here
    problem = None
    if device is None:
        problem = _gpu_problem()
    elif device.type != GPU:
        problem = f"the GPU is left out, {device} is asked for"
    elif device.index:
        gpus = here["gpus"]
        here["gpus"] = sorted(gpus, key=lambda gpu: gpu["index"] != device.index)
    return here if problem is None else {**here, "gpus": [], "problems": [problem]}


def default_device(bundle: Bundle, choice: Choice) -> torch.device:
    """The GPU for engines that need one, and for the portable form of a GPU's variant where PyTorch
    can use a GPU."""
    variant = bundle.manifest.variants[choice.variant]
    need_it = any(e.kind in TENSORRT_KINDS or "gpu" in e.record for e in variant.engines.values())
    if need_it and not choice.degraded:
        return torch.device(GPU)
    if variant.target.get("sm") is not None and torch.cuda.is_available():
        return torch.device(GPU)
    return torch.device("cpu")


def usable(device: torch.device | str) -> torch.device:
    """The device, once PyTorch has put a tensor there.

    Raises:
        ConfigError: there is no such device.
        DeviceError: PyTorch cannot use it here.
    """
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}", hint="give cpu, cuda or cuda:N") from error
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DeviceError(
            f"PyTorch cannot use {where} on this machine: {reason}",
            hint="take another device, trtpack doctor shows what this machine has",
        ) from error
    return where


def _gpu_problem() -> str | None:
    """Why PyTorch cannot use the GPU; no CUDA context is made, which would take its memory."""
    if torch.device(GPU).type == "cuda" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} cannot use the GPU of this machine"
    return None
