# SPDX-License-Identifier: Apache-2.0
"""One model under ``torch.compile(backend="trtpack")``: is it right, and what ran in PyTorch?"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from tests.zoo import MODELS
from tests.zoo.agreement import answers_of
from tests.zoo.batches import at_batch, batch_sizes
from trtpack.livening import liven
from trtpack_runtime.smoke import compare
from trtpack_runtime.starting import DegradedWarning

Found = dict[str, Any]


def _trtpack(**options: str) -> dict[str, Any]:
    return {"backend": "trtpack", "options": options}


WAYS: Mapping[str, dict[str, Any]] = {
    "pytorch": _trtpack(engine="reference", target="cpu"),
    "networks": _trtpack(engine="reference", target="rtx-4090"),
    "dynamic": _trtpack(engine="reference", target="rtx-4090"),
    "inductor": _trtpack(engine="inductor", target="cpu"),
    "torch": {"backend": "inductor"},
}
"""How a model is compiled: lowered and run by PyTorch, its TensorRT networks by their evaluator
(``dynamic`` at a second batch too), by AOTInductor, or by PyTorch's own backend, which the others
are held against. As arguments of ``torch.compile``."""


def trial(name: str, way: str, log: Path | None = None) -> Found:
    """What is found of a model: its graphs, breaks, what fell back and why, and its worst errors
    beside eager PyTorch. ``log`` is where what went wrong is written."""
    torch.set_num_threads(1)
    torch.compiler.reset()
    counters.clear()
    model, args, shapes = MODELS[name]()
    liven(model, args)
    calls = [args]
    if way == "dynamic":
        if shapes is None:
            return {"not_asked": "its example has no batch that could vary"}
        calls.append(at_batch(args, shapes, batch_sizes(args, shapes)[1]))
    found: Found = {}
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wanted = [answers_of(model, call) for call in calls]
        try:
            found |= _run(model, calls, wanted, WAYS[way])
        except Exception as error:  # a model's failure is what a run is to find out
            found["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
            if log is not None:
                with log.open("a") as file:
                    file.write(f"== {name} {way}\n{traceback.format_exc()}\n")
    found["graphs"] = counters["stats"]["unique_graphs"]
    found["breaks"] = sum(counters["graph_break"].values())
    reasons = [str(w.message) for w in told if issubclass(w.category, DegradedWarning)]
    return found | {"fallbacks": sorted(set(reasons))}


def _run(
    model: torch.nn.Module,
    calls: Sequence[tuple[Any, ...]],
    wanted: Sequence[list[torch.Tensor]],
    how: dict[str, Any],
) -> Found:
    compiled = torch.compile(model, **how)
    started = time.perf_counter()
    answered = [answers_of(compiled, call) for call in calls]
    seconds = time.perf_counter() - started
    answered.append(answers_of(compiled, calls[0]))  # on what is compiled now
    rel_l2, differing = 0.0, 0.0
    for have, want in zip(answered, [*wanted, wanted[0]], strict=True):
        for got, value in zip(have, want, strict=True):
            laid_out = _has_gaps(value) or got.stride() == value.stride()
            if got.shape != value.shape or not laid_out:
                raise AssertionError(f"answers {_laid(got)}, not {_laid(value)}")
            figures = compare(got, value)
            if value.is_floating_point() and value.numel():
                rel_l2 = max(rel_l2, figures.rel_l2)
            elif figures.differing:
                differing = max(differing, figures.differing / figures.elements)
    return {"seconds": round(seconds, 1), "rel_l2": rel_l2, "differing": differing}


def _laid(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} with strides {tensor.stride()}"


def _has_gaps(tensor: torch.Tensor) -> bool:
    """Whether its elements do not fill the memory that they lie in, as in a part of another one:
    an engine answers such a tensor without the rest."""
    span = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() != 0 and span + 1 != tensor.numel()
