# SPDX-License-Identifier: Apache-2.0
"""Builds an engine of a portable network: definition, configuration, plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trtpack_runtime import mapping
from trtpack_runtime import network as networks
from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.network import Network
from trtpack_runtime.safetensors import open_safetensors

from ._emit import Emitted, Weights, emit
from ._options import BuildOptions as BuildOptions

PLAN, TACTICS_IN, TACTICS_OUT = "plan", "tactics.in", "tactics.out"
"""A build job's files beside ``network.json``: the plan, the timing cache before and after."""

OnProgress = Callable[[Mapping[str, Any]], bool]
"""Told ``{"phase", "step", "steps"}``; answers whether the build goes on."""

_HINT = "see the last lines of TensorRT above, or keep the operator in PyTorch with --torch-op"


def run(trt: Any, job: Mapping[str, Any], folder: Path, report: OnProgress) -> dict[str, Any]:
    """The worker's task ``build``.

    Raises:
        EngineBuildError: TensorRT refused.
        DeviceError: there is no GPU for this TensorRT, or too small a one.
        ConfigError: the disk refused.
    """
    network = networks.from_bytes((folder / "network.json").read_bytes())
    weights = {
        name: view
        for place in job["weights"]
        for name, view in open_safetensors(mapping.from_json(place)).items()
    }
    options = BuildOptions.from_json(job["options"])
    try:
        with replaced(folder / PLAN) as file:
            size = write_plan(trt, network, weights, options, file, report)
    except OSError as error:
        raise cannot_write(folder / PLAN, error) from error
    return {"plan_bytes": size}


def build_plan(
    trt: Any,
    network: Network,
    weights: Weights,
    options: BuildOptions,
    on_progress: OnProgress | None = None,
) -> Any:
    """The plan as TensorRT's ``IHostMemory``, which has the buffer protocol.

    Raises:
        EngineBuildError: TensorRT refused a layer, an option or the whole, with its last errors.
    """
    emitted, config = _prepared(trt, network, weights, options, on_progress)
    plan = emitted.builder.build_serialized_network(emitted.definition, config)
    if plan is None:
        raise _no_engine(emitted)
    return plan


def write_plan(
    trt: Any,
    network: Network,
    weights: Weights,
    options: BuildOptions,
    file: BinaryIO,
    on_progress: OnProgress | None = None,
) -> int:
    """Builds into a file and answers the plan's size in bytes.

    TensorRT 10.13 and later write piece by piece and never hold the whole plan beside the weights.

    Raises:
        EngineBuildError: as ``build_plan``.
        OSError: the disk refused.
    """
    if not hasattr(trt, "IStreamWriter"):
        return file.write(build_plan(trt, network, weights, options, on_progress))
    emitted, config = _prepared(trt, network, weights, options, on_progress)
    writer = _stream(trt, file)
    built = emitted.builder.build_serialized_network_to_stream(emitted.definition, config, writer)
    if writer.error is not None:
        raise writer.error
    if not built:
        raise _no_engine(emitted)
    return int(writer.size)


def _prepared(
    trt: Any,
    network: Network,
    weights: Weights,
    options: BuildOptions,
    on_progress: OnProgress | None,
) -> tuple[Emitted, Any]:
    emitted = emit(trt, network, weights)
    config = emitted.builder.create_builder_config()
    _configure(emitted, config, network, options)
    if on_progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = monitor = _monitor(trt, on_progress)
        emitted.kept.append(monitor)
    return emitted, config


def _no_engine(emitted: Emitted) -> EngineBuildError:
    said = emitted.log.errors[-3:] or emitted.log.tail(3) or ["it gave no reason"]
    return EngineBuildError("TensorRT built no engine: " + "; ".join(said), hint=_HINT)


def _stream(trt: Any, file: BinaryIO) -> Any:
    class Stream(trt.IStreamWriter):
        """Writes to a file; an exception must not pass through TensorRT, so it is kept."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.size = 0
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                file.write(data)
            except OSError as error:
                self.error = error
                return 0
            self.size += len(data)
            return len(data)

    return Stream()


def _configure(emitted: Emitted, config: Any, network: Network, options: BuildOptions) -> None:
    trt, before = emitted.trt, len(emitted.log.errors)
    flags = trt.BuilderFlag
    if not options.tf32:
        config.clear_flag(flags.TF32)
    for name in (*options.flags, *_typing_flags(trt, network)):
        if not hasattr(flags, name):
            raise EngineBuildError(f"this TensorRT has no build flag {name}", hint=_HINT)
        config.set_flag(getattr(flags, name))
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.compute_capabilities:
        _set_capabilities(trt, config, options.compute_capabilities)
    _add_profiles(emitted, config, network)
    if len(emitted.log.errors) > before:
        said = "; ".join(emitted.log.errors[before:])
        raise EngineBuildError(f"TensorRT refused a build option: {said}", hint=_HINT)


def _typing_flags(trt: Any, network: Network) -> list[str]:
    """Without strong typing, the precisions the network needs and the order to obey them."""
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return []
    types = {tensor.dtype for tensor in network.tensors.values()}
    return ["OBEY_PRECISION_CONSTRAINTS"] + (["FP16"] if "HALF" in types else [])


def _set_capabilities(trt: Any, config: Any, names: tuple[str, ...]) -> None:
    if not hasattr(trt, "ComputeCapability"):
        raise EngineBuildError(
            "only TensorRT-RTX builds for a named compute capability", hint=_HINT
        )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        known = trt.ComputeCapability.__members__
        if name not in known or not config.set_compute_capability(known[name], index):
            raise EngineBuildError(
                f"this TensorRT-RTX cannot build for {name}, it knows {', '.join(known)}",
                hint="choose another target",
            )


def _add_profiles(emitted: Emitted, config: Any, network: Network) -> None:
    for shapes in network.profiles:
        profile = emitted.builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes.shapes.items():
            profile.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise EngineBuildError(
                f"TensorRT refused the shape ranges {dict(shapes.shapes)}",
                hint="give each dynamic input min <= opt <= max",
            )


def _monitor(trt: Any, on_progress: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Nested phases of a build; answering False to a step cancels it."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            on_progress(
                {"phase": phase_name, "parent": parent_phase, "step": 0, "steps": num_steps}
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self._steps.get(phase_name, 0)
            return on_progress({"phase": phase_name, "step": step + 1, "steps": steps})

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            on_progress({"phase": phase_name, "step": steps, "steps": steps})

    return Monitor()
