# SPDX-License-Identifier: Apache-2.0
"""A bundle that PyTorch runs, as ``trtpack run`` measures it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..bundle import Bundle
from ..clocks import Clock, clock_of
from ..golden import sample_inputs, sample_state
from ..input_check import check_inputs
from ..loading import DegradedWarning, load
from ..module import BundleModule
from ..progress import OnProgress
from ..resolve import Choice
from ..run_report import TensorFacts
from ..samples import read_inputs, top_classes, wanted_inputs, write_outputs
from ..smoke_report import SmokeReport
from ..starting import warm_up
from .run_subject import built_engines, in_order


class TorchSubject:
    """A loaded ``BundleModule``."""

    def __init__(self, module: BundleModule, settings: Mapping[str, Any]) -> None:
        self.module = module
        self.settings = dict(settings)
        self._degrade = False
        self._before: dict[str | None, Mapping[str, torch.Tensor]] = {}
        self._first_answer: float | None = None
        if module.device.type == "cpu":
            self.settings["threads"] = torch.get_num_threads()

    @classmethod
    def load(cls, bundle: Path, on_progress: OnProgress, **options: Any) -> TorchSubject:
        """Loads a bundle as ``loading.load`` does; what it warns of is told in the report."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegradedWarning)
            began = time.perf_counter()
            module = load(bundle, on_progress=on_progress, warm_up=True, **options)
            said = options.get("cuda_graphs")
            built = module.bundle.manifest.variants[module.choice.variant].cuda_graphs
            subject = cls(module, {"cuda_graphs": built if said is None else said})
            subject._degrade = not options.get("strict", False)
            if not module.ready:
                warm_up(module)
                subject._first_answer = time.perf_counter() - began
                module.wait_ready()
        return subject

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""
        return self.module.bundle

    @property
    def choice(self) -> Choice:
        """The variants, and why one was taken."""
        return self.module.choice

    @property
    def degraded(self) -> bool:
        """Whether something that should be an engine runs in PyTorch."""
        return self.module.degraded

    @property
    def device(self) -> str:
        """Where it runs; a GPU always with its number."""
        where = self.module.device
        if where.type == "cuda" and where.index is None:
            return f"cuda:{torch.cuda.current_device()}"
        return str(where)

    @property
    def built(self) -> Mapping[str, Mapping[str, Any]]:
        """The engines that this machine built."""
        return built_engines(self.module.own_engines)

    @property
    def failed(self) -> Mapping[str, str]:
        """Why segments run in PyTorch that should not."""
        return self.module.failed_engines

    @property
    def uncompiled(self) -> Mapping[str, str]:
        """Why what PyTorch runs in any case is not compiled."""
        return self.module.uncompiled

    @property
    def start(self) -> Mapping[str, Any]:
        """What the phases of the start took, and what memory was predicted."""
        memory = self.module.memory
        return {
            "seconds": self.module.times.to_json(),
            "memory": None if memory is None else memory.to_json(),
            **({} if self._first_answer is None else {"first_answer_seconds": self._first_answer}),
        }

    @property
    def clock(self) -> Clock:
        """CUDA's events on a GPU, else the host's time."""
        return clock_of(self.module.device)

    def segments(self, method: str) -> tuple[tuple[str, str], ...]:
        """A method's segments in order, each with the kind that runs it."""
        return tuple((s.name, s.kind) for s in self.module.segments(method))

    def inputs(self, method: str, files: Sequence[str]) -> Sequence[torch.Tensor]:
        """The inputs of files, else of the first golden sample, else zeros of the best shapes."""
        self.module.method(method)
        if not files:
            return sample_inputs(self.module, method)
        manifest = self.bundle.manifest
        described = manifest.methods[method]
        given = read_inputs(files, wanted_inputs(described), manifest.metadata)
        device = self.module.device
        values = [value.to(device) for value in in_order(described, given)]
        check_inputs(described.inputs, values, device)
        return values

    def call(self, method: str, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """One call."""
        with torch.inference_mode():
            return self.module.run(method, inputs)

    def smoke(self, method: str) -> SmokeReport:
        """Replays a method's golden samples; PyTorch takes the place of engines that fail them,
        unless the run is strict."""
        return self.module.smoke(method, degrade=self._degrade)

    def reset(self, method: str | None = None) -> None:
        """Puts the state back to its first values, or to what a method's first golden sample
        begins with."""
        if method not in self._before:
            self._before[method] = sample_state(self.module, method) if method else {}
        self.module.reset(self._before[method])

    def told(self, name: str, value: torch.Tensor, values: bool = False) -> TensorFacts:
        """What to say of a tensor."""
        low = high = None
        if values and value.numel() and not value.is_complex():
            low, high = float(value.min()), float(value.max())
        dtype = str(value.dtype).removeprefix("torch.")
        return TensorFacts(name, dtype, tuple(value.shape), value.nbytes, low, high)

    def labels(self, outputs: Sequence[torch.Tensor]) -> list[list[tuple[str, float]]]:
        """The best labels for each row, where the one output is 2-D logits; else nothing."""
        names = self.bundle.manifest.metadata.get("labels")
        if isinstance(names, Mapping) and all(str(i) in names for i in range(len(names))):
            names = [names[str(i)] for i in range(len(names))]
        if not isinstance(names, list) or not names:
            return []
        logits = [v for v in outputs if v.dim() == 2 and v.is_floating_point()]
        return top_classes(logits[0], list(map(str, names))) if len(logits) == 1 else []

    def write(self, path: Path, outputs: Mapping[str, torch.Tensor]) -> None:
        """Writes outputs to a ``.safetensors`` or ``.npz`` file."""
        write_outputs(path, outputs)

    def gpu_peak_bytes(self) -> int | None:
        """What PyTorch's allocator counted since the start."""
        if self.module.device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self.module.device))
