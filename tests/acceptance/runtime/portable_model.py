# SPDX-License-Identifier: Apache-2.0
"""One model of ``portable``: ``python -m tests.acceptance.runtime.portable_model NAME DEVICE FOLDER
QUICK``. The last line of standard output is what was found, as JSON."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

import trtpack
from tests.acceptance.side_by_side import side_by_side
from tests.zoo import MODELS
from trtpack.livening import liven
from trtpack_runtime.clocks import clock_of
from trtpack_runtime.errors import TrtpackError
from trtpack_runtime.loading import load
from trtpack_runtime.module import BundleModule
from trtpack_runtime.tf32 import full_float32

ROUNDS, REPEATS, UNTIMED = 5, 30, 5
Calls = dict[str, Callable[[], Any]]


def main() -> None:
    """Does what the command line names."""
    name, device, folder, quick = sys.argv[1:]
    warnings.simplefilter("ignore")
    found = measured(name, torch.device(device), Path(folder), rounds=1 if int(quick) else ROUNDS)
    print(json.dumps(found))


def measured(name: str, device: torch.device, folder: Path, rounds: int) -> dict[str, Any]:
    """A model's golden samples and latencies, by every way that it can be run here."""
    module, args, _ = MODELS[name]()
    liven(module, args, seed=0)
    found: dict[str, Any] = {}
    calls: Calls = {}
    inputs = tree_map_only(torch.Tensor, lambda t: t.to(device), args)
    for kind in ("inductor", "reference"):
        try:
            bundle = folder / f"{name}-{kind}.tar"
            is_built, began = bundle.exists(), time.perf_counter()
            loaded = packaged(module, args, bundle, kind, device)
            if kind == "inductor" and not is_built:
                found["seconds"] = round(time.perf_counter() - began, 1)
            found[kind] = judged(loaded, kind)
            calls[kind] = partial(loaded, *inputs)
        except TrtpackError as error:
            found[kind] = {"problem": error.message.splitlines()[0]}
    on_device = module.to(device).eval()
    calls["eager"] = partial(on_device, *inputs)
    with torch.inference_mode(), full_float32():
        try:
            compiled = torch.compile(on_device)
            compiled(*inputs)
            calls["torch.compile"] = partial(compiled, *inputs)
        except Exception as error:  # whatever the compiler meets is told with the row
            found["compile_problem"] = str(error).strip().splitlines()[0]
        found["latency_ms"] = side_by_side(
            calls, clock_of(device), rounds=rounds, repeats=REPEATS, untimed=UNTIMED
        )
    return found


def packaged(
    module: torch.nn.Module, args: tuple[Any, ...], bundle: Path, kind: str, device: torch.device
) -> BundleModule:
    """The model loaded from a bundle for this machine; built once."""
    if not bundle.exists():
        options = trtpack.Options(
            targets=("cpu" if device.type == "cpu" else "native",),
            output=bundle,
            engine="inductor" if kind == "inductor" else "reference",
        )
        trtpack.build((module, args), options=options)
    return load(bundle, device=device, strict=True)


def judged(loaded: BundleModule, kind: str) -> dict[str, Any]:
    """How the golden samples came out, by segments that ``kind`` and PyTorch run."""
    kinds = {segment.kind for segment in loaded.segments()}
    if kind not in kinds:
        return {"problem": f"the segments ran by {', '.join(sorted(kinds)) or 'nothing'}"}
    report = loaded.smoke()
    worst = report.worst
    errors = [c.metrics.rel_l2 for c in report.comparisons if c.metrics is not None]
    return {
        "passed": report.passed,
        "failure": None if worst is None else worst.failure,
        "rel_l2": max(errors, default=0.0),
    }


if __name__ == "__main__":
    main()
