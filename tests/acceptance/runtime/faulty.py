# SPDX-License-Identifier: Apache-2.0
"""Breaks something on the GPU while a bundle is loaded or runs: ``faulty.py CASE BUNDLE``.

Each case is a function that answers what came of it; it runs in a process of its own, which a case
may lose. Prints that as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.engines import tensorrt
from trtpack_runtime.errors import TrtpackError
from trtpack_runtime.golden import sample_inputs
from trtpack_runtime.loading import load
from trtpack_runtime.module import BundleModule

_SPARE = 8 << 20
_CALLS = 50_000
"""So many answers of a thousand numbers take more than what is spared."""

Case = Callable[[Path], dict[str, Any]]


def corrupted_header(bundle: Path) -> dict[str, Any]:
    """The plan's first bytes change after its digest was compared."""
    return _corrupted(bundle, 0.0)


def corrupted_middle(bundle: Path) -> dict[str, Any]:
    """A part amid the plan, among the weights, changes after its digest was compared."""
    return _corrupted(bundle, 0.5)


def no_memory_at_load(bundle: Path) -> dict[str, Any]:
    """The GPU is full when the bundle is loaded, with and without the prediction."""
    held = _filled()
    predicted = _error(lambda: load(bundle, device="cuda"))
    tried = _error(lambda: _checked(load(bundle, device="cuda", check_memory=False)))
    del held
    torch.cuda.empty_cache()
    return {"error": predicted, "unchecked": tried, "after": _checked(load(bundle, device="cuda"))}


def no_memory_at_run(bundle: Path) -> dict[str, Any]:
    """The GPU is full when the module is called."""
    module = load(bundle, device="cuda")
    inputs = sample_inputs(module, "forward")
    held = _filled()
    error = _error(lambda: [module.run("forward", inputs) for _ in range(_CALLS)])
    del held
    torch.cuda.empty_cache()
    return {"error": error, "after": _checked(module)}


def faulting_kernel(bundle: Path) -> dict[str, Any]:
    """A kernel of somebody else reads outside of its memory, then the module is called."""
    module = load(bundle, device="cuda")
    inputs = sample_inputs(module, "forward")
    torch.zeros(4, device="cuda").index_select(0, torch.tensor([1 << 20], device="cuda"))

    def call() -> None:
        module.run("forward", inputs)
        module.run("forward", inputs)[0].cpu()

    return {"error": _error(call)}


def full_store(bundle: Path) -> dict[str, Any]:
    """Nothing can be written while an engine is to be built."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    module = load(bundle, device="cuda")
    return {"failed": dict(module.failed_engines), "after": _checked(module)}


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        corrupted_header,
        corrupted_middle,
        no_memory_at_load,
        no_memory_at_run,
        faulting_kernel,
        full_store,
    )
}


def _corrupted(bundle: Path, where: float) -> dict[str, Any]:
    plain = tensorrt.load

    def changed(blob: Any, context: Any) -> Any:
        data = bytearray(blob)
        begin = int(len(data) * where)
        data[begin : begin + 256] = b"\xa5" * 256
        return plain(memoryview(data), context)

    tensorrt.load = changed
    module = load(bundle, device="cuda")
    report = module.smoke(degrade=True)
    return {
        "failed": dict(module.failed_engines),
        "departures": [departure.told for departure in report.departures],
        "after": "right" if report.passed else "wrong",
    }


def _checked(module: BundleModule) -> str:
    return "right" if module.smoke().passed else "wrong"


def _error(act: Callable[[], Any]) -> str:
    """What an act raises, by class and words; else what it answers."""
    try:
        return f"nothing: {act()}"
    except (TrtpackError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def _filled() -> list[torch.Tensor]:
    """Tensors that leave next to nothing of the GPU's memory."""
    held, size = [], 1 << 40
    while size >= _SPARE:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.cuda.OutOfMemoryError:
            size //= 2
    return held


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(CASES[sys.argv[1]](Path(sys.argv[2]))), flush=True)
