# SPDX-License-Identifier: Apache-2.0
"""Deserialises a plan, gives it the bundle's weights where it has none, and makes a runner of it;
shared by ``tensorrt`` and ``tensorrt-rtx``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import BundleError, DeviceError, InternalError
from trtpack_runtime.layers import KINDS

from . import LoadContext, Runner
from ._cuda import device_error, started
from ._execute import CONTEXTS, EngineRunner
from ._find import imported
from ._graph import GRAPHS, GraphRunner, mode_of
from ._log import Log
from ._options import BuildOptions
from ._refit import refit

_WANTS = (
    (re.compile(r"expecting library version ([\d.]+) got ([\d.]+)"), "TensorRT"),
    (re.compile(r"expecting compute ([\d.]+) got compute ([\d.]+)"), "SM"),
    (re.compile(r"Current Version: (\d+), Serialized Engine Version: (\d+)"), "plan format"),
)
"""How TensorRT says what it has (first) and what a plan wants (second)."""


def load_engine(module: str, blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """Deserialises a plan on the context's GPU with the TensorRT called ``module``.

    Raises:
        BundleError: the plan is damaged, or of another TensorRT or GPU, or weights are missing.
        DeviceError: there is no such TensorRT here, or the GPU has no memory for the plan.
    """
    name, network = context.segment.name, context.network
    if network is None or blob is None:
        raise InternalError(f"segment {name} is no built network")
    if context.device.type != "cuda":
        raise BundleError(
            f"segment {name} is an engine for a GPU, not for {context.device}",
            hint="load the bundle with device='cuda'",
        )
    trt = imported(module)
    import torch

    with torch.cuda.device(context.device):  # TensorRT works on the current device
        plan = memoryview(blob.read_bytes()) if isinstance(blob, Path) else blob
        runtime, engine, log = deserialized(trt, plan, context.record, trust=context.trust)
        if context.record.get("refit"):
            refit(trt, engine, log, context.weights)
        declared = {tensor.name: tensor.dtype for tensor in network.inputs}
        declared |= {output: network.tensors[output].dtype for output in network.outputs}
        inputs = [tensor.name for tensor in network.inputs]
        sizes = {t.name: tuple(d for d in t.shape if isinstance(d, int)) for t in network.inputs}
        fixed = {t.name: sizes[t.name] for t in network.inputs if len(sizes[t.name]) == t.rank}
        graphs = mode_of(context.options.get("cuda_graphs"))
        by_data = any(KINDS[layer.kind].sized_by_data for layer in network.layers)
        if by_data and graphs == "on":
            reason = "sizes within it depend on data, which a graph cannot wait for"
            warnings.warn(
                f"segment {name} runs without a CUDA graph: {reason}", UserWarning, stacklevel=2
            )
        kind: Callable[..., EngineRunner] = EngineRunner
        if graphs != "off" and not by_data:
            count = int(context.options.get("graphs", GRAPHS))
            kind = partial(GraphRunner, mode=graphs, graphs=count)
        return kind(
            runtime,
            engine,
            log,
            inputs,
            network.outputs,
            context.device,
            declared,
            network.outputs_by_data(),
            trt,
            fixed,
            limit=int(context.options.get("contexts", CONTEXTS)),
            capturable=not by_data,
        )


def deserialized(
    trt: Any, plan: memoryview, record: Mapping[str, Any] | None = None, *, trust: bool = False
) -> tuple[Any, Any, Log]:
    """A plan's runtime and engine, and the log they write to.

    Args:
        trt: the TensorRT module.
        plan: the serialised engine.
        record: its compatibility record, for errors.
        trust: whether machine code inside the plan may run, as a version-compatible one has it.

    Raises:
        BundleError: TensorRT cannot read the plan; ``wants`` and ``has`` say why where it tells.
            Or it holds machine code and is not trusted.
        DeviceError: there is no GPU, or it has no memory for the plan.
    """
    options = BuildOptions.from_json((record or {}).get("options") or {})
    has_code = options.version_compatible and "EXCLUDE_LEAN_RUNTIME" not in options.flags
    if has_code and not trust:
        raise BundleError(
            "the engine is version-compatible, so it holds machine code that this machine did "
            "not build",
            hint="add --trust if you trust who built it",
        )
    log, runtime = started(trt, "Runtime")
    if has_code:
        runtime.engine_host_code_allowed = True
    if options.dla_core is not None:
        runtime.DLA_core = options.dla_core
    before = len(log.errors)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _unreadable(trt, record or {}, log.errors[before:])
    return runtime, engine, log


def _unreadable(trt: Any, record: Mapping[str, Any], said: list[str]) -> BundleError | DeviceError:
    """Why a plan could not be read: the machine, another version or GPU, or damage."""
    rebuild = "let this device build its own engine"
    for pattern, what in _WANTS:
        for text in said:
            match = pattern.search(text)
            if match:
                return BundleError(
                    f"the engine wants {what} {match[2]}, this machine has {match[1]}",
                    hint=rebuild,
                    wants=f"{what} {match[2]}",
                    has=f"{what} {match[1]}",
                )
    words = "; ".join(said[-3:]) or "it gave no reason"
    version = record.get("tensorrt") or record.get("tensorrt_rtx")
    wants, has = version and f"TensorRT {version}", f"TensorRT {trt.__version__}"
    if any("magic" in text.lower() for text in said):
        return BundleError(
            "TensorRT cannot read the engine: it is no plan, a damaged one, or one of another "
            f"TensorRT: {words}",
            hint=rebuild,
            wants=wants,
            has=has,
        )
    return device_error(said) or BundleError(
        f"TensorRT cannot read the engine: {words}", hint=rebuild, wants=wants, has=has
    )
