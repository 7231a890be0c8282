# SPDX-License-Identifier: Apache-2.0
"""Makes the module of a choice: with its engines at once, or first in PyTorch while they load."""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .bundle import Bundle
from .compiling import by_reason
from .device_builds import DeviceBuilds
from .device_faults import device_fault, naming_faults
from .engines._processes import end_children
from .errors import BuildCancelled, TrtpackError
from .finish import Finished, Stores, Workshop
from .free_memory import used_bytes, within_memory
from .golden import sample_inputs
from .module import BundleModule
from .phases import LoadTimes, phase
from .progress import OnProgress, Progress
from .resolve import Choice
from .scratch import scratch_folder
from .segment_loading import PORTABLE

LOADING = "its engine is being loaded"
_PATIENCE_S = 10.0


class DegradedWarning(UserWarning):
    """The bundle, or a part of it, runs in PyTorch because no engine for it fits this machine."""


@dataclass(frozen=True)
class Start:
    """What is decided before anything is loaded; the arguments are those of ``load``."""

    bundle: Bundle
    choice: Choice
    device: torch.device
    facts: Mapping[str, Any]
    stores: Stores = field(default_factory=Stores)
    strict: bool = False
    trust: bool = False
    build: bool = True
    rebuild: bool = False
    warm_up: bool = False
    check_memory: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    on_progress: OnProgress | None = None

    def full(self) -> BundleModule:
        """The module with its engines."""
        before = used_bytes(self.device)
        with scratch_folder() as scratch:
            shop = Workshop(self.facts, scratch, self.stores, self.on_progress)
            builds = DeviceBuilds(self.bundle, shop, strict=self.strict)
            module = builds.load(self.choice, self._made, build=self.build, rebuild=self.rebuild)
        if self.warm_up:
            warm_up(module)
        return _measured(module, before)

    def fast(self) -> BundleModule:
        """The module in PyTorch, which takes its engines over when they are loaded."""
        waiting = {} if self.choice.degraded else self._waiting()
        if not waiting:
            return self.full()
        module = self._made(self.choice, {}, {}, waiting)
        Background(self, module).begin()
        return module

    def _waiting(self) -> dict[str, str]:
        """The segments whose engines take their time, each with the reason to run without."""
        chosen = self.choice.chosen
        engines = self.bundle.manifest.variants[self.choice.variant].engines
        return {
            name: LOADING
            for name, ref in engines.items()
            if ref.kind != PORTABLE
            and (name in chosen.own or (name in chosen.engines and chosen.engines[name].usable))
        }

    def _made(
        self,
        choice: Choice,
        own: Mapping[str, Finished],
        failed: Mapping[str, str],
        avoided: Mapping[str, str] | None = None,
    ) -> BundleModule:
        options = dict(self.options)
        plan = None
        if self.check_memory:
            with phase("resolve"):
                plan, options = within_memory(
                    self.bundle, choice, own, avoided or {}, self.device, self.facts, options
                )
        with phase("map"), naming_faults():
            module = BundleModule(
                self.bundle,
                choice,
                self.device,
                own=own,
                failed=failed,
                avoided=avoided,
                trust=self.trust,
                options=options,
            )
        module.startup.memory = plan
        return module


class Background:
    """Loads a module's engines in a thread of its own while the module answers from PyTorch."""

    def __init__(self, start: Start, module: BundleModule) -> None:
        self._module, self._cancelled = module, False
        self._start = replace(start, on_progress=self._told(start.on_progress))
        self._thread = threading.Thread(target=self._run, name="trtpack-start", daemon=True)

    def begin(self) -> None:
        """Starts the thread; it ends with the process."""
        self._module.startup.begin()
        self._thread.start()
        atexit.register(self._cancel)

    def _run(self) -> None:
        times, startup = LoadTimes(), self._module.startup
        try:
            with times.measuring():
                full = self._start.full()
            startup.memory = full.startup.memory
            self._module.take_over(full)
            if full.device.type == "cuda":
                torch.cuda.empty_cache()  # what PyTorch needed in their place
            told(self._module)
        except BaseException as error:  # whatever it is, the module must learn of it
            self._failed(error)
        finally:
            startup.times = startup.times + times
            startup.finish()
            atexit.unregister(self._cancel)

    def _failed(self, error: BaseException) -> None:
        problem = error if isinstance(error, TrtpackError) else device_fault(error)
        if problem is None:
            problem = TrtpackError(f"the engines could not be loaded: {error!r}")
            problem.__cause__ = error
        self._module.startup.error = problem
        if self._cancelled:
            return
        self._module.give_up(problem, strict=self._start.strict)
        if not self._start.strict:
            told(self._module)

    def _told(self, on_progress: OnProgress | None) -> OnProgress:
        def tell(progress: Progress) -> None:
            if self._cancelled:
                raise BuildCancelled("the build was stopped: the program ends")
            if on_progress is not None:
                on_progress(progress)

        return tell

    def _cancel(self) -> None:
        """Ends the thread's children before the interpreter goes."""
        self._cancelled = True
        end_children()
        self._thread.join(_PATIENCE_S)


def warm_up(module: BundleModule) -> None:
    """Calls every method once with its first golden sample, or zeros; the state is as before."""
    with phase("warm-up"):
        for method in module.methods:
            module.run(method, sample_inputs(module, method))
            module.reset()
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)


def _measured(module: BundleModule, before: int | None) -> BundleModule:
    """The module, which knows how much more memory is taken than ``before``."""
    after, plan = used_bytes(module.device), module.startup.memory
    if plan is not None and before is not None and after is not None:
        module.startup.memory = replace(plan, measured_bytes=max(0, after - before))
    return module


def told(module: BundleModule, stacklevel: int = 2) -> None:
    """Warns of what runs in PyTorch that should not."""
    if module.choice.degraded:
        text = module.choice.explain().splitlines()[0]
        warnings.warn(text, DegradedWarning, stacklevel=stacklevel + 1)
    for segment, reason in module.failed_engines.items():
        if reason != LOADING:
            text = f"{module.variant}: {segment} runs in PyTorch, slower than an engine: {reason}"
            warnings.warn(text, DegradedWarning, stacklevel=stacklevel + 1)
    for reason, segments in by_reason(module.uncompiled).items():
        text = f"{module.variant}: PyTorch runs {segments} uncompiled, slower: {reason}"
        warnings.warn(text, DegradedWarning, stacklevel=stacklevel + 1)
