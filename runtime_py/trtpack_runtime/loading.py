# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle and loads what fits this machine: which variant, on which device."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from .bundle import Bundle, open_bundle
from .device import facts
from .device_builds import DeviceBuilds
from .errors import ConfigError, DeviceError
from .finish import Finished, Stores, Workshop
from .module import BundleModule
from .own_engines import own_engines
from .progress import OnProgress
from .resolve import Choice, check_requirements, choose, resolve, untrusted_members
from .segments import TENSORRT_KINDS

_GPU = "cuda"


class DegradedWarning(UserWarning):
    """The bundle, or a part of it, runs in PyTorch because no engine for it fits this machine."""


def load(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    target: str | None = None,
    strict: bool = False,
    trust: bool = False,
    imports: Sequence[str] = (),
    build: bool = True,
    rebuild: bool = False,
    cuda_graphs: bool = False,
    on_progress: OnProgress | None = None,
) -> BundleModule:
    """Opens a bundle and loads the variant that fits this machine best.

    Args:
        path: the bundle.
        device: where to run; the CPU unless the variant is for a GPU and PyTorch can use one.
        target: take this variant instead of the best one.
        strict: fail rather than run in PyTorch what no engine here fits.
        trust: load machine code that another machine built.
        imports: modules to import first, which register custom operators.
        build: build engines that the bundle leaves to this device, in child processes, and keep
            them in its store; without it they run in PyTorch unless they are there already.
        rebuild: build every engine that this device can build anew.
        cuda_graphs: replay TensorRT engines as CUDA graphs while shapes stay the same, which is
            faster where kernels are small; takes memory for one more copy of inputs and outputs.
        on_progress: told how far such a build is.

    Raises:
        BundleError: a damaged bundle, an operator that is missing, or (strict) no variant fits.
        ConfigError: no such variant, module or device.
        DeviceError: a device that PyTorch cannot use here.
        EngineBuildError: (strict) an engine could not be built, or its build was cancelled.
    """
    wanted = None if device is None else _usable(device)
    for name in imports:
        _import(name)
    bundle = open_bundle(path)
    here = _facts_for(wanted)
    check_requirements(bundle.manifest, here, sys.modules)
    stores = Stores()
    untrusted = () if trust else untrusted_members(bundle)
    own = own_engines(bundle, here, stores.engines, untrusted, build=build)
    candidates = resolve(bundle.manifest, here, untrusted, own)
    choice = choose(bundle.manifest, candidates, here, target=target, strict=strict)
    where = wanted or _default_device(bundle, choice)

    def made(now: Choice, own: Mapping[str, Finished], failed: Mapping[str, str]) -> BundleModule:
        return BundleModule(
            bundle,
            now,
            _usable(where),
            own=own,
            failed=failed,
            trust=trust,
            options={"cuda_graphs": cuda_graphs, "strict": strict},
        )

    with tempfile.TemporaryDirectory(prefix="trtpack-", ignore_cleanup_errors=True) as scratch:
        shop = Workshop(here, Path(scratch), stores, on_progress)
        device_builds = DeviceBuilds(bundle, shop, strict=strict)
        module = device_builds.load(choice, made, build=build, rebuild=rebuild)
    if choice.degraded:
        warnings.warn(choice.explain().splitlines()[0], DegradedWarning, stacklevel=2)
    for segment, reason in module.failed_engines.items():
        text = f"{choice.variant}: {segment} runs in PyTorch, slower than an engine: {reason}"
        warnings.warn(text, DegradedWarning, stacklevel=2)
    return module


def _facts_for(device: torch.device | None) -> dict[str, Any]:
    """This machine's facts, the GPU that is wanted first; without its GPUs where a device is wanted
    that is none, or where PyTorch cannot use them."""
    here = facts()
    if not here["gpus"]:
        return here
    problem = None
    if device is None:
        problem = _gpu_problem()
    elif device.type != _GPU:
        problem = f"the GPU is left out, {device} is asked for"
    elif device.index:
        gpus = here["gpus"]
        here["gpus"] = sorted(gpus, key=lambda gpu: gpu["index"] != device.index)
    return here if problem is None else {**here, "gpus": [], "problems": [problem]}


def _gpu_problem() -> str | None:
    """Why PyTorch cannot use the GPU; no CUDA context is made, which would take its memory."""
    if torch.device(_GPU).type == "cuda" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} cannot use the GPU of this machine"
    return None


def _default_device(bundle: Bundle, choice: Choice) -> torch.device:
    """The GPU for engines that need one, and for the portable form of a GPU's variant where PyTorch
    can use a GPU."""
    variant = bundle.manifest.variants[choice.variant]
    on_engines = any(engine.kind in TENSORRT_KINDS for engine in variant.engines.values())
    if on_engines and (not choice.degraded or torch.cuda.is_available()):
        return torch.device(_GPU)
    return torch.device("cpu")


def _usable(device: torch.device | str) -> torch.device:
    """The device, once PyTorch has put a tensor there."""
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


def _import(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {name}: {error}", hint="check --import and the Python path"
        ) from error
