# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle and loads what fits this machine: which variant, on which device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import torch

from .bundle import open_bundle
from .choosing import chosen
from .errors import ConfigError
from .finish import Stores
from .method_call import CallOptions, check_option
from .module import BundleModule
from .phases import LoadTimes, phase
from .placement import default_device, facts_for, usable
from .progress import OnProgress
from .starting import DegradedWarning, Start, told

__all__ = ["DegradedWarning", "load"]

_COUNTS = ("contexts", "graphs")


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
    cuda_graphs: bool | Literal["off", "on", "auto"] | None = None,
    inputs: Literal["refuse", "convert"] = "refuse",
    outputs: Literal["fresh", "reused"] = "fresh",
    on_progress: OnProgress | None = None,
    verify: Literal["lazy", "full"] = "lazy",
    start: Literal["full", "fast"] = "full",
    warm_up: bool = False,
    check_memory: bool = True,
    options: Mapping[str, Any] | None = None,
) -> BundleModule:
    """Opens a bundle and loads the variant that fits this machine best.

    Args:
        path: the bundle.
        device: where to run; the CPU unless the variant is for a GPU and PyTorch can use one.
        target: take this variant instead of the best one.
        strict: fail rather than run in PyTorch what no engine here fits, or what has an engine that
            does not load.
        trust: load machine code that another machine built.
        imports: modules to import first, which register custom operators.
        build: build engines that the bundle leaves to this device, in child processes, and keep
            them in its store; without it they run in PyTorch unless they are there already.
        rebuild: build every engine that this device can build anew.
        cuda_graphs: replay TensorRT engines as CUDA graphs while shapes stay the same, which is
            faster where kernels are small; takes memory for one more copy of inputs and outputs.
            None for what the bundle says, which is not to unless it was built so.
        inputs: "refuse" what is on another device or of another type, as PyTorch does, or "convert"
            it where nothing is lost.
        outputs: "fresh" ones at each call, or memory that the next call with equal shapes
            overwrites ("reused").
        on_progress: told how far such a build is.
        verify: compare every digest of the bundle first ("full"), or those of the parts that are
            used ("lazy"). An engine that is damaged is refused with "full"; its segment runs in
            PyTorch otherwise.
        start: with "fast" the module answers at once from PyTorch, while engines are built and
            loaded in the background, and takes them over between two calls; ``module.ready`` and
            ``module.wait_ready`` say when. Where that fails it stays in PyTorch, or the next call
            raises (strict).
        warm_up: call every method once; the state stays as it was.
        check_memory: refuse what surely does not fit into the memory that is free.
        options: ``contexts``, how many threads run an engine at a time (4), and ``graphs``, for how
            many sets of shapes CUDA graphs are kept (8).

    Raises:
        BundleError: a damaged bundle, an operator that is missing, or (strict) no variant fits.
        ConfigError: no such variant, module, device or option.
        DeviceError: a device that PyTorch cannot use here, or with too little memory.
        EngineBuildError: (strict) an engine could not be built, or its build was cancelled.
    """
    asked = {**(options or {}), "cuda_graphs": cuda_graphs, "inputs": inputs, "outputs": outputs}
    _check(options or {})
    check_option("start", start, ("full", "fast"))
    CallOptions.of(asked)
    times = LoadTimes()
    with times.measuring():
        wanted = None if device is None else usable(device)
        for name in imports:
            _import(name)
        with phase("open"):
            bundle = open_bundle(path, verify=verify)
        stores = Stores()
        with phase("resolve"):
            here = facts_for(wanted)
            choice = chosen(
                bundle, here, stores, target=target, strict=strict, trust=trust, build=build
            )
            where = usable(wanted or default_device(bundle, choice))
            if cuda_graphs is None:
                cuda_graphs = bundle.manifest.variants[choice.variant].cuda_graphs
        plan = Start(
            bundle,
            choice,
            where,
            here,
            stores,
            strict=strict,
            trust=trust,
            build=build,
            rebuild=rebuild,
            warm_up=warm_up,
            check_memory=check_memory,
            options={**asked, "cuda_graphs": cuda_graphs, "strict": strict},
            on_progress=on_progress,
        )
        module = plan.fast() if start == "fast" else plan.full()
    module.startup.times = times
    told(module)
    return module


def _check(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in _COUNTS:
            raise ConfigError(
                f"unknown option {name!r} in options", hint=f"give {' or '.join(_COUNTS)}"
            )
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"the option {name} is {value!r}", hint="give a number, 1 at least")


def _import(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {name}: {error}", hint="check --import and the Python path"
        ) from error
