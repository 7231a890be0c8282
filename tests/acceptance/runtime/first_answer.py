# SPDX-License-Identifier: Apache-2.0
"""A process that loads a bundle and calls it once: ``first_answer.py BUNDLE DEVICE full|fast``.

Prints how long each step took, in seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any


def main(bundle: str, device: str, start: str) -> dict[str, Any]:
    """The seconds of every step, in order, and the memory of the start."""
    began = time.perf_counter()
    import torch

    torch_there = time.perf_counter()
    from trtpack_runtime.golden import sample_inputs
    from trtpack_runtime.loading import load

    imported = time.perf_counter()
    warnings.simplefilter("ignore")
    chosen: Any = start
    module = load(bundle, device=device, start=chosen)
    loaded = time.perf_counter()
    inputs = sample_inputs(module, "forward")
    called = time.perf_counter()
    module.run("forward", inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    answered = time.perf_counter()
    module.wait_ready()
    ready = time.perf_counter()
    if device == "cuda":
        torch.cuda.synchronize()
    times = module.times.to_json()
    times.pop("total")
    return {
        "seconds": {
            "import torch": torch_there - began,
            "import trtpack_runtime": imported - torch_there,
            **times,
            "load in all": loaded - imported,
            "first call": answered - called,
            "to the first result": answered - began,
            **({} if start == "full" else {"to the engines": ready - began}),
        },
        "memory": None if module.memory is None else module.memory.to_json(),
        "kinds": [segment.kind for segment in module.segments()],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4])))
