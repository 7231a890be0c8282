# SPDX-License-Identifier: Apache-2.0
"""One segment of a bundle ready to be debugged: its network, constants and a sample's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trtpack_runtime.builders import BUILDERS, Site
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import LoadContext, Verdict, tensorrt_module
from trtpack_runtime.engines._find import imported
from trtpack_runtime.errors import BundleError, ConfigError, DeviceError, InternalError
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.golden import sample_inputs, sample_state
from trtpack_runtime.module import BundleModule
from trtpack_runtime.network import Network
from trtpack_runtime.resolve import Candidate, Choice
from trtpack_runtime.segments import TENSORRT_KINDS, FoundSegment, every_segment

from .build_seeds import build_options, seed_tactics
from .probing import DebugJob, EngineProbe

OnProgress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Subject:
    """A network segment, the stored tensors, and its inputs by name in a golden sample's call."""

    found: FoundSegment
    network: Network
    module: BundleModule
    inputs: Mapping[str, torch.Tensor]


def choose_segment(bundle: Bundle, target: str | None, segment: str | None) -> FoundSegment:
    """The segment to debug: the one named, else the only one with a network.

    Raises:
        ConfigError: there is none, or several, or it runs by something that has no layers.
    """
    everything = list(every_segment(bundle, target))
    named = [found for found in everything if segment in (None, found.name)]
    if not named:
        names = ", ".join(dict.fromkeys(found.name for found in everything)) or "none"
        raise ConfigError(
            f"there is no segment {segment!r}, there are {names}", hint="choose one of them"
        )
    fitting = [f for f in named if f.network is not None and f.kind in TENSORRT_KINDS]
    if not fitting:
        kinds = ", ".join(dict.fromkeys(f"{found} runs by {found.kind}" for found in named))
        raise ConfigError(
            f"only TensorRT engines can be compared layer by layer; {kinds}",
            hint="name a target with TensorRT, see them with: trtpack inspect",
        )
    if len(fitting) > 1:
        targets = list(dict.fromkeys(found.variant for found in fitting))
        raise ConfigError(
            f"there are several: {', '.join(map(str, fitting))}",
            hint="choose one with --target" if len(targets) > 1 else "choose one with --segment",
        )
    return fitting[0]


def subject(bundle: Bundle, found: FoundSegment, device: torch.device, sample: int = 0) -> Subject:
    """Runs a golden sample in PyTorch up to the segment and keeps what goes into it.

    Raises:
        ConfigError: there is no such sample.
        BundleError: the segment's program does not hold together.
    """
    if found.network is None:
        raise InternalError(f"{found} has no network")
    verdict = Verdict("works", "every segment runs in PyTorch")
    candidate = Candidate(found.variant, verdict, {})
    module = BundleModule(bundle, Choice(candidate, True, (candidate,)), device)
    method = found.program.method
    inputs: dict[str, torch.Tensor] = {}
    names = [tensor.name for tensor in found.network.inputs]

    def watch(segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
        if segment.name != found.name:
            return segment.run

        def run(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            inputs.update(zip(names, (value.clone() for value in values), strict=True))
            return segment.run(values)

        return run

    given = sample_inputs(module, method, sample)
    module.reset(sample_state(module, method, sample))
    with module.watching(watch):
        module.run(method, given)
    module.reset()
    return Subject(found, found.network, module, inputs)


def check_builds_here(bundle: Bundle, found: FoundSegment, facts: Mapping[str, Any]) -> None:
    """DeviceError where this machine cannot build and run engines like the segment's."""
    target = bundle.manifest.variants[found.variant].target
    reason = BUILDERS[found.kind].cannot_run(Site(facts, target))
    if reason is None and not torch.cuda.is_available():
        reason = f"PyTorch {torch.__version__} cannot use the GPU of this machine"
    if reason is not None:
        raise DeviceError(
            f"cannot build an engine of {found} here to look into: {reason}",
            hint="run this on the device, or add --simulate to compare PyTorch's own rounding",
        )


def engine_probe(
    subject: Subject, facts: Mapping[str, Any], on_progress: OnProgress | None = None
) -> EngineProbe:
    """What looks at tensors inside engines of the segment, built as its own engine was.

    Raises:
        BundleError: the segment has no engine of TensorRT.
        DeviceError: there is no such TensorRT here.
    """
    found, module = subject.found, subject.module
    if found.ref is None:
        raise BundleError(f"{found} has no engine", hint="choose another segment")
    bundle, kind = module.bundle, found.kind
    name = tensorrt_module(kind)
    options = replace(  # only what changes what the engine computes
        build_options(found.ref), weights="inside", version_compatible=False, locked=False
    )
    context = LoadContext(
        found.segment,
        module.stored,
        module.device,
        found.network,
        weights=bundle.weights,
        trust=True,
    )
    gpu: Mapping[str, Any] = facts["gpus"][0] if facts["gpus"] else {}
    job = DebugJob(
        name,
        subject.network,
        tuple(bundle.file_part(member) for member in bundle.manifest.weights.members),
        options,
        context,
        str(found),
        tactics=seed_tactics(bundle, found.variant, kind, facts),
        memory_bytes=gpu.get("memory_bytes") or None,
        integrated=bool(gpu.get("integrated")),
    )
    values = [subject.inputs[tensor.name] for tensor in subject.network.inputs]
    return EngineProbe(imported(name), job, values, on_progress)
