# SPDX-License-Identifier: Apache-2.0
"""Runs a segment with PyTorch itself: nothing to build, fits wherever PyTorch is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.errors import BundleError, InternalError

from . import LoadContext, Runner, Verdict

if TYPE_CHECKING:
    import torch


def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """Works wherever torch is; there is no record to compare."""
    if not facts.get("torch"):
        return Verdict("impossible", "PyTorch is not installed")
    return Verdict("works", f"PyTorch {facts['torch']} runs it eagerly")


def load(blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """The segment as PyTorch operations; ``blob`` is not used.

    On a GPU its work may be captured; where an operation has to wait for the GPU, a capture fails.
    """
    run: Any = _aten(context) if context.segment.kind == "aten" else _network(context)
    run.capturable = context.device.type == "cuda"
    runner: Runner = run
    return runner


def _aten(context: LoadContext) -> Runner:
    from trtpack_runtime import aten

    if context.segment.graph is None:
        raise InternalError(f"segment {context.segment.name} has no graph")
    module = aten.decode(context.segment.graph, context.constants, context.device)

    def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(module(*inputs))

    return run


def _network(context: LoadContext) -> Runner:
    from trtpack_runtime.reference import evaluate

    network = context.network
    if network is None:
        raise InternalError(f"segment {context.segment.name} has no network")
    missing = [c.data for c in network.constants.values() if c.data not in context.constants]
    if missing:
        raise BundleError(
            f"segment {context.segment.name} needs the weight {missing[0]!r}, "
            "which the bundle lacks",
            hint="build the bundle again",
        )

    def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return evaluate(network, context.constants, inputs)

    return run
