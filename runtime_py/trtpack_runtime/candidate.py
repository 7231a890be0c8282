# SPDX-License-Identifier: Apache-2.0
"""One candidate of a tuning, in this process: it is loaded once and called when its turn comes.

Lines of JSON in and out. So candidates share no allocator, threads or caches, one that crashes
takes nothing with it, and its memory can be told. It ends when its standard input does. Without
PyTorch it runs what needs none, as ``trtpack run`` does.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .session import SessionFuture

WARM_CALLS = 3
LEAST_CALLS = 3
IN_FLIGHT = 8
TRUSTED = "trusted"
"""Says that code of another machine is the host's own, which built it and asks for this."""


def main(bundle: Path, target: str, *, trust: bool) -> None:
    """Loads a bundle's variant, says what memory it takes, and answers requests."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is none of our lines

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=out, flush=True)

    try:
        subject = subject_of(bundle, target, trust=trust)
    except Exception as error:
        answer({"error": str(error)})
        return
    answer({"memory_bytes": subject.memory_bytes, "device": subject.device})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(block(subject, request["seconds"]))
        except Exception as error:
            answer({"error": str(error)})
            return


class Subject(Protocol):
    """What is measured: ``memory_bytes`` is what it takes beside the libraries."""

    memory_bytes: int
    device: str
    asynchronous: bool

    def reset(self) -> None:
        """Puts the state back to its first values."""

    def call(self) -> None:
        """Calls every method once, without waiting for it."""

    def wait(self) -> None:
        """Until everything is done."""


def subject_of(bundle: Path, target: str, *, trust: bool) -> Subject:
    """A bundle's variant as it runs here: in PyTorch, or without where there is none.

    Raises:
        TrtpackError: it cannot be loaded.
        RuntimeError: an engine of it cannot.
    """
    if util.find_spec("torch") is None:
        return _WithoutPyTorch(bundle, target, trust=trust)
    return _InPyTorch(bundle, target, trust=trust)


def block(subject: Subject, seconds: float) -> dict[str, Any]:
    """Calls for so long: the median of a call in milliseconds, and calls a second.

    Raises:
        TrtpackError: a call fails; or whatever PyTorch raises of it.
    """
    subject.reset()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < LEAST_CALLS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        subject.call()
        subject.wait()
        times.append(time.perf_counter() - start)
    per_second = len(times) / sum(times)
    if subject.asynchronous:
        start = time.perf_counter()
        for _ in range(max(len(times), IN_FLIGHT)):
            subject.call()
        subject.wait()
        per_second = max(len(times), IN_FLIGHT) / (time.perf_counter() - start)
    return {"ms": statistics.median(times) * 1e3, "per_second": per_second}


class _InPyTorch:
    def __init__(self, bundle: Path, target: str, *, trust: bool) -> None:
        import torch

        from .clocks import clock_of
        from .golden import sample_inputs
        from .loading import load

        before = _resident("VmRSS")
        loaded = load(bundle, target=target, trust=trust, build=False)
        on_gpu = loaded.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            before = _on_gpu()
        if loaded.degraded or loaded.failed_engines:
            raise RuntimeError(f"an engine does not load: {dict(loaded.failed_engines)}")
        self._torch, self._module = torch, loaded
        clock = clock_of(loaded.device)
        self.wait, self.asynchronous = clock.wait, clock.asynchronous
        self.device = str(loaded.device)
        names = loaded.bundle.manifest.methods
        self._calls = [(name, sample_inputs(loaded, name)) for name in names]
        _warm(self.call, self.wait)
        after = _on_gpu() if on_gpu else _resident("VmHWM")
        self.memory_bytes = max(after - before, 0)

    def reset(self) -> None:
        self._module.reset()

    def call(self) -> None:
        with self._torch.inference_mode():
            for name, inputs in self._calls:
                self._module.run(name, inputs)


class _WithoutPyTorch:
    """Inputs come from the host at each call, since only PyTorch has them on the GPU before."""

    asynchronous = True

    def __init__(self, bundle: Path, target: str, *, trust: bool) -> None:
        from .bundle import open_bundle
        from .session import Session
        from .session.cuda import Cuda, api

        manifest = open_bundle(bundle).manifest
        cuda = Cuda(api(), 0)
        before = cuda.free_bytes()
        self._session = Session(
            bundle,
            method=tuple(manifest.methods),
            cuda_graphs=manifest.variants[target].cuda_graphs,
            trust=trust,
            target=target,
            build=False,
            in_flight=IN_FLIGHT,
        )
        self.device = f"cuda:{self._session.device}"
        self._calls = [(name, _arrays(self._session, name)) for name in manifest.methods]
        self._under_way: list[SessionFuture] = []
        _warm(self.call, self.wait)
        self.memory_bytes = max(before - cuda.free_bytes(), 0)

    def reset(self) -> None:
        self._session.reset()

    def call(self) -> None:
        for name, inputs in self._calls:
            future = self._session.run_async(inputs, copy=False, method=name)
            self._under_way.append(future)

    def wait(self) -> None:
        self._session.synchronize()
        for future in self._under_way:
            future.result()  # which says whether it failed
        self._under_way.clear()


def _arrays(session: Any, method: str) -> Sequence[Any]:
    """A method's golden inputs, else zeros of its best shapes."""
    from .session.arrays import numpy_dtype
    from .session.smoke_numpy import golden_samples

    described = session.bundle.manifest.methods[method]
    if samples := golden_samples(session.bundle, described):
        return list(samples[0].inputs)
    import numpy

    shapes = [
        spec.opt or [size if isinstance(size, int) else 1 for size in spec.shape]
        for spec in described.inputs
    ]
    return [
        numpy.zeros(shape, numpy_dtype(spec.dtype))
        for shape, spec in zip(shapes, described.inputs, strict=True)
    ]


def _warm(call: Callable[[], None], wait: Callable[[], None]) -> None:
    for _ in range(WARM_CALLS):
        call()
        wait()


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
    main(Path(sys.argv[1]), sys.argv[2], trust=TRUSTED in sys.argv[3:])
