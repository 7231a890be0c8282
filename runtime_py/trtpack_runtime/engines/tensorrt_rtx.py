# SPDX-License-Identifier: Apache-2.0
"""TensorRT-RTX: engines for RTX-class GPUs, built on any host without a GPU.

A plan names the compute capabilities it serves and holds its weights. It belongs to the exact
TensorRT-RTX that built it; the GPU specialises it when it is loaded.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtpack_runtime.mapping import FilePart
from trtpack_runtime.network import Network

from . import LoadContext, Runner, Verdict
from ._build import BuildOptions
from ._child import BuildJob, build_in_worker
from ._figures import memory_of
from ._load import load_engine

MODULE = "tensorrt_rtx"
CAPABILITIES: Mapping[str, str] = {
    "7.5": "SM75",
    "8.0": "SM80",
    "8.6": "SM86",
    "8.9": "SM89",
    "12.0": "SM120",
    "12.1": "SM121",
}
"""The compute capabilities TensorRT-RTX 1.7 has a name for."""


def build(
    network: Network,
    weights: Path,
    plan: Path,
    *,
    compute_capabilities: tuple[str, ...],
    optimization_level: int | None = None,
    workspace_bytes: int | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_log: Callable[[str], None] | None = None,
    verbose: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """Builds ``plan`` in a child process and answers its compatibility record.

    Args:
        network: the portable network.
        weights: the safetensors file with every stored tensor the network names.
        plan: the file to write.
        compute_capabilities: what it shall run on, such as ``("SM89",)``.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to TensorRT.
        workspace_bytes: the most scratch memory a layer may take.
        on_progress: told what TensorRT does, as a short clause.
        on_log: told each of TensorRT's log lines when the build is over, VERBOSE ones too where
            ``verbose``.
        name: what errors call the engine; the plan's file name where not given.

    Raises:
        EngineBuildError: TensorRT refused the network, or its process died.
        DeviceError: TensorRT-RTX is not installed.
        ConfigError: the disk refused.
    """
    options = BuildOptions(
        compute_capabilities=compute_capabilities,
        optimization_level=optimization_level,
        workspace_bytes=workspace_bytes,
    )
    return build_with(
        network,
        (weights,),
        plan,
        options=options,
        on_progress=_clauses(on_progress) if on_progress else None,
        on_log=on_log,
        verbose=verbose,
        name=name,
    )


def build_with(
    network: Network,
    weights: Sequence[Path | FilePart],
    plan: Path,
    *,
    options: BuildOptions,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    on_log: Callable[[str], None] | None = None,
    verbose: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """As ``build``, with all options, several files of weights and progress as TensorRT tells."""
    job = BuildJob(MODULE, network, tuple(weights), plan, options, name or plan.stem, verbose)
    result = build_in_worker(job, on_progress)
    if on_log is not None:
        for line in result.log:
            on_log(line)
    memory = memory_of(result.log)
    return {
        "tensorrt_rtx": result.version,
        "compute_capabilities": list(options.compute_capabilities),
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "options": {
            key: value for key, value in options.to_json().items() if key != "compute_capabilities"
        },
        **({"memory": memory} if memory else {}),
    }


def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """Fits the same TensorRT-RTX on a GPU of one of the capabilities the plan was built for."""
    if not facts["gpus"]:
        return Verdict(
            "impossible", "; ".join(facts.get("problems", ())) or "there is no NVIDIA GPU"
        )
    gpu = facts["gpus"][0]
    capability = CAPABILITIES.get(gpu["sm"])
    if capability is None:
        return Verdict("impossible", f"TensorRT-RTX does not run on {gpu['name']} (SM {gpu['sm']})")
    has = facts.get("tensorrt_rtx")
    if not has:
        return Verdict("impossible", "TensorRT-RTX is not installed")
    for what in ("os", "arch"):
        if record[what] != facts[what]:
            return Verdict("rebuild", f"built for {record[what]}, this machine is {facts[what]}")
    if capability not in record["compute_capabilities"]:
        built_for = ", ".join(record["compute_capabilities"])
        return Verdict("rebuild", f"built for {built_for}, {gpu['name']} is {capability}")
    if record["tensorrt_rtx"] != has:
        wants = record["tensorrt_rtx"]
        return Verdict("rebuild", f"built by TensorRT-RTX {wants}, this machine has {has}")
    return Verdict("exact", f"built by TensorRT-RTX {has} for {capability}")


def load(blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """Deserialises the plan on the context's GPU; raises as ``tensorrt.load``."""
    return load_engine(MODULE, blob, context)


def _clauses(on_progress: Callable[[str], None]) -> Callable[[Mapping[str, Any]], None]:
    def told(event: Mapping[str, Any]) -> None:
        on_progress(f"{event['phase'].lower()} {event['step']}/{event['steps']}")

    return told
