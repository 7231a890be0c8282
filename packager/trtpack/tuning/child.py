# SPDX-License-Identifier: Apache-2.0
"""One candidate in a process of its own: it is loaded once and called when its turn comes.

Lines of JSON in and out. So candidates share no allocator, threads or caches, one that crashes
takes nothing with it, and its memory can be told. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARM_CALLS = 3
LEAST_CALLS = 3
IN_FLIGHT = 8


def main(bundle: Path, target: str) -> None:
    """Loads a bundle's variant, says what memory it takes, and answers requests."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is none of our lines

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=out, flush=True)

    try:
        subject = _Subject(bundle, target)
    except Exception as error:
        answer({"error": str(error)})
        return
    answer({"memory_bytes": subject.memory_bytes, "device": subject.device})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(subject.block(request["seconds"]))
        except Exception as error:
            answer({"error": str(error)})
            return


class _Subject:
    def __init__(self, bundle: Path, target: str) -> None:
        import torch

        from trtpack_runtime.clocks import clock_of
        from trtpack_runtime.golden import sample_inputs
        from trtpack_runtime.loading import load

        before = _resident("VmRSS")
        loaded = load(bundle, target=target, build=False)
        on_gpu = loaded.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            before = _on_gpu()
        if loaded.degraded or loaded.failed_engines:
            raise RuntimeError(f"an engine does not load: {dict(loaded.failed_engines)}")
        self._torch, self._module, self._clock = torch, loaded, clock_of(loaded.device)
        self.device = str(loaded.device)
        names = loaded.bundle.manifest.methods
        self._calls = [(name, sample_inputs(loaded, name)) for name in names]
        for _ in range(WARM_CALLS):
            self._call()
            self._clock.wait()
        after = _on_gpu() if on_gpu else _resident("VmHWM")
        self.memory_bytes = max(after - before, 0)

    def block(self, seconds: float) -> dict[str, Any]:
        """Calls for so long: the median of a call in milliseconds, and calls a second."""
        self._module.reset()
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < LEAST_CALLS or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            self._call()
            self._clock.wait()
            times.append(time.perf_counter() - start)
        per_second = len(times) / sum(times)
        if self._clock.asynchronous:
            start = time.perf_counter()
            for _ in range(max(len(times), IN_FLIGHT)):
                self._call()
            self._clock.wait()
            per_second = max(len(times), IN_FLIGHT) / (time.perf_counter() - start)
        return {"ms": statistics.median(times) * 1e3, "per_second": per_second}

    def _call(self) -> None:
        with self._torch.inference_mode():
            for name, inputs in self._calls:
                self._module.run(name, inputs)


def _resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _on_gpu() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
