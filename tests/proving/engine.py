# SPDX-License-Identifier: Apache-2.0
"""Builds and runs networks with a real TensorRT, by the product's own means.

Engines run in a child process, so that one which crashes or breaks the CUDA context is one
failure and no more; the child lasts until then.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime import network as networks
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines import engine as engine_kind
from trtpack_runtime.engines._child import BuildJob, build_in_worker
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import DeviceError, EngineBuildError, TrtpackError
from trtpack_runtime.network import Network
from trtpack_runtime.program import Segment
from trtpack_runtime.safetensors import TensorView, write_safetensors

T = torch.Tensor
KINDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""A TensorRT's module -> the engine kind that runs its plans."""


class TensorRT:
    """A TensorRT that builds each network it is given and, unless ``build_only``, runs it."""

    def __init__(
        self, module: str, options: BuildOptions, *, build_only: bool, seconds: float
    ) -> None:
        """``seconds`` is the longest that one build or one run may take."""
        self._module, self._options = module, options
        self._build_only, self._seconds = build_only, seconds
        self._pool: ProcessPoolExecutor | None = None

    def answers(
        self, network: Network, constants: Mapping[str, T], samples: Sequence[Mapping[str, T]]
    ) -> list[list[T]] | None:
        """The outputs for each sample; None where engines are only built.

        Raises:
            TrtpackError: it cannot be built or run.
        """
        with tempfile.TemporaryDirectory(prefix="prove-") as name:
            folder = Path(name)
            write_safetensors(folder / "weights", map(_view, constants, constants.values()))
            job = BuildJob(
                self._module, network, (folder / "weights",), folder / "plan", self._options
            )
            with _at_most(self._seconds):
                build_in_worker(job)
            if self._build_only:
                return None
            (folder / "network").write_bytes(network.to_bytes())
            torch.save([dict(sample) for sample in samples], folder / "samples")
            return self._run(folder)

    def close(self) -> None:
        """Ends the child process."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown()
            self._pool = None

    def _run(self, folder: Path) -> list[list[T]]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            said = self._pool.submit(run, KINDS[self._module], str(folder)).result(self._seconds)
        except BrokenProcessPool:
            said = "the engine crashed"
        except TimeoutError:
            said = f"the engine did not end in {self._seconds:.0f} s"
        if said is not None:
            self.close()  # a CUDA context may be broken for good
            raise DeviceError(said, hint="run it alone with --only")
        answers: list[list[T]] = torch.load(folder / "answers")
        return answers


def run(kind: str, folder: str) -> str | None:
    """In the child: runs a plan on each sample and leaves the answers beside it.

    Answers what went wrong.
    """
    try:
        _run(kind, Path(folder))
    except (TrtpackError, RuntimeError) as error:  # PyTorch's for a kernel of anybody's
        return f"{type(error).__name__}: {error}"
    return None


def _run(kind: str, at: Path) -> None:
    network = networks.from_bytes((at / "network").read_bytes())
    device = torch.device("cuda", 0)
    segment = Segment("proof", "network", {}, {})
    runner = engine_kind(kind).load(at / "plan", LoadContext(segment, {}, device, network))
    answers = []
    for sample in torch.load(at / "samples"):
        outputs = runner([sample[tensor.name].to(device) for tensor in network.inputs])
        torch.cuda.synchronize()
        answers.append([output.cpu() for output in outputs])
    torch.save(answers, at / "answers")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Ends what runs within by an error after so long; only for the main thread."""

    def late(*_: Any) -> None:
        raise EngineBuildError(f"not built after {seconds:.0f} s", hint="give it more --seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _view(name: str, value: T) -> TensorView:
    flat = value.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().data
    return TensorView(name, by_torch(value.dtype).safetensors, tuple(value.shape), data)
