# SPDX-License-Identifier: Apache-2.0
"""Builds an engine of a portable network: definition, configuration, plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from trtpack_runtime import mapping
from trtpack_runtime import network as networks
from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.network import Network
from trtpack_runtime.safetensors import open_safetensors

from ._config import check_release, configure
from ._cuda import device_error
from ._emit import Emitted, Weights, emit
from ._estimate import available_bytes, check_memory
from ._options import BuildOptions as BuildOptions
from ._release import is_rtx
from ._timing import entries_of, is_locked, tactics_of, use_tactics

PLAN, TACTICS_IN, TACTICS_OUT = "plan", "tactics.in", "tactics.out"
"""A build job's files beside ``network.json``: the plan, the timing cache before and after."""

OnProgress = Callable[[Mapping[str, Any]], bool]
"""Told ``{"phase", "step", "steps"}``; answers whether the build goes on."""

_HINT = "see the last lines of TensorRT above, or keep the operator in PyTorch with --torch-op"
_LOCKED_HINT = "build once without --locked: TensorRT then measures the tactics that are missing"
_LOOKED_AT, _SHOWN = 20, 3
_AT = r"(?<![\w/])(?<!(?<!\.)\.){}(?![\w/]|\.\w)"
"""A layer's whole name; TensorRT writes the ends of a range of layers as ``first...last``."""


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
    memory_bytes = job.get("memory_bytes")
    if memory_bytes is not None:
        check_memory(network, memory_bytes)
    known, refused = folder / TACTICS_IN, list[str]()
    emitted, config = prepare(
        trt,
        network,
        weights,
        _within(options, memory_bytes),
        on_progress=report,
        tactics=known.read_bytes() if known.exists() else None,
        on_refused_tactics=refused.append,
        workspace_bytes=available_bytes() // 2 if job.get("integrated") else None,
    )
    try:
        with replaced(folder / PLAN) as file:
            size = write_plan(network, emitted, config, file)
        tactics = tactics_of(trt, config)
        if tactics is not None:
            (folder / TACTICS_OUT).write_bytes(tactics)
    except OSError as error:
        raise cannot_write(folder / PLAN, error) from error
    return {
        "plan_bytes": size,
        "entries": entries_of(trt, config),
        "refused_tactics": "; ".join(refused) or None,
    }


def _within(options: BuildOptions, memory_bytes: int | None) -> BuildOptions:
    """The options with no more scratch memory than the GPU has."""
    asked = options.workspace_bytes
    if memory_bytes is None or asked is None or asked <= memory_bytes:
        return options
    return replace(options, workspace_bytes=memory_bytes)


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
        DeviceError: there is no GPU for this TensorRT.
    """
    prepared = prepare(trt, network, weights, options, on_progress=on_progress)
    return _plan_of(network, *prepared)


def write_plan(network: Network, emitted: Emitted, config: Any, file: BinaryIO) -> int:
    """Builds what ``prepare`` made into a file and answers the plan's size in bytes.

    TensorRT 10.13 and later write piece by piece and never hold the whole plan beside the weights.

    Raises:
        EngineBuildError: TensorRT refused the whole, with its last errors.
        OSError: the disk refused.
    """
    trt = emitted.trt
    if not hasattr(trt, "IStreamWriter"):
        return file.write(_plan_of(network, emitted, config))
    writer = _stream(trt, file)
    built = emitted.builder.build_serialized_network_to_stream(emitted.definition, config, writer)
    if writer.error is not None:
        raise writer.error
    if not built:
        raise _no_engine(network, emitted, config)
    return int(writer.size)


def prepare(
    trt: Any,
    network: Network,
    weights: Weights,
    options: BuildOptions,
    *,
    on_progress: OnProgress | None = None,
    tactics: bytes | None = None,
    on_refused_tactics: Callable[[str], None] | None = None,
    workspace_bytes: int | None = None,
) -> tuple[Emitted, Any]:
    """The definition and the configuration of a build.

    Args:
        trt: the TensorRT module.
        network: the portable network.
        weights: its stored tensors by name.
        options: how TensorRT builds.
        on_progress: told what TensorRT does, from 10.0 on.
        tactics: a serialised timing cache to begin with.
        on_refused_tactics: told what is wrong with a cache that TensorRT does not take.
        workspace_bytes: the most scratch memory a layer may take, where the options do not say.

    Raises:
        EngineBuildError: TensorRT refused a layer or an option.
        DeviceError: there is no GPU for this TensorRT.
    """
    check_release(trt, options)
    weak = options.dla_core is not None and hasattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS")
    emitted = emit(
        trt,
        network,
        weights,
        strong=False if weak else None,
        refittable=options.weights != "inside",
        debug=options.debug,
    )
    config = emitted.builder.create_builder_config()
    configure(emitted, config, network, options, workspace_bytes=workspace_bytes)
    refused = use_tactics(emitted, config, tactics, locked=options.locked)
    if refused is not None and on_refused_tactics is not None:
        on_refused_tactics(refused)
    if on_progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = monitor = _monitor(trt, on_progress)
        emitted.kept.append(monitor)
    return emitted, config


def _plan_of(network: Network, emitted: Emitted, config: Any) -> Any:
    plan = emitted.builder.build_serialized_network(emitted.definition, config)
    if plan is None:
        raise _no_engine(network, emitted, config)
    return plan


def _no_engine(network: Network, emitted: Emitted, config: Any) -> EngineBuildError | DeviceError:
    said = emitted.errors[-3:] or emitted.log.tail(3) or ["it gave no reason"]
    # without a GPU, TensorRT-RTX builds and complains about CUDA all the same
    machine = None if is_rtx(emitted.trt) else device_error(emitted.errors[-3:])
    if machine is not None:
        return machine
    layers = layers_named(network, emitted.errors[-_LOOKED_AT:])
    text = "TensorRT built no engine" + _places(network, layers) + ": " + "; ".join(said)
    hint = _LOCKED_HINT if is_locked(emitted.trt, config) else _HINT
    return EngineBuildError(text, hint=hint, layers=layers)


def layers_named(network: Network, texts: Sequence[str]) -> tuple[str, ...]:
    """The network's layers that lines of TensorRT's log name, in the network's order."""
    joined = "\n".join(texts)
    return tuple(
        layer.name
        for layer in network.every_layer()
        if layer.name in joined and re.search(_AT.format(re.escape(layer.name)), joined)
    )


def _places(network: Network, layers: tuple[str, ...]) -> str:
    """Where the user's model has these layers."""
    origins = {layer.name: layer.origin for layer in network.every_layer()}
    shown = [f"{name} ({origins[name]})" if origins[name] else name for name in layers[:_SHOWN]]
    more = f" and {len(layers) - _SHOWN} more layers" if len(layers) > _SHOWN else ""
    return f" of {', '.join(shown)}{more}" if shown else ""


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
