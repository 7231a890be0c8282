# SPDX-License-Identifier: Apache-2.0
"""Which weights are sparse, as a part of a build's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..spelling import first_of
from . import BuildReport

Wrapped = Callable[[str, str], list[str]]

_MOST = 6
_NAMED = 4


def sparsity_part(report: BuildReport, wrapped: Wrapped) -> list[str]:
    """How many weights have 2:4 sparsity, what the others lack, and which GPUs skip no zeros."""
    found = report.sparsity
    if found is None:
        return []
    sparse, left, usable = len(found["sparse"]), found["left"], len(found["usable"])
    pruned = report.passes.get("prune", 0)
    text = f"Sparsity 2:4: {sparse} of {sparse + len(left)} weights"
    text += f", {pruned} of them pruned" if pruned else ""
    if usable < sparse:
        text += f"; {usable} in a type that TensorRT skips zeros in (fp16, bf16, int8, fp8)"
    lines = wrapped(text, "")
    if sparse:
        lines += wrapped(f"sparse: {_names(found['sparse'], found)}", "  ")
    for why, count in Counter(left.values()).most_common(_MOST):
        names = _names([node for node, reason in left.items() if reason == why], found)
        lines += wrapped(f"{count:>4} not: {why} ({names})", "  ")
    for target, why in found["without"].items():
        lines += wrapped(f"{target} cannot use it: {why}", "  ")
    return lines


def _names(nodes: Sequence[str], found: Mapping[str, Any]) -> str:
    return first_of([found["places"][node] for node in nodes], _NAMED)
