# SPDX-License-Identifier: Apache-2.0
"""Builds and runs networks with a real TensorRT, by the product's own means.

Engines are built and run in a child process, so that one which crashes or breaks the CUDA context
is one failure and no more, and several children work side by side; each lasts until then.
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
from threading import Timer
from typing import Any

import torch

from trtpack_runtime import network as networks
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines import engine as engine_kind
from trtpack_runtime.engines._child import BuildJob, build_in_worker
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.engines._processes import start_early
from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.network import Network
from trtpack_runtime.program import Segment
from trtpack_runtime.safetensors import TensorView, write_safetensors

T = torch.Tensor
KINDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""A TensorRT's module -> the engine kind that runs its plans."""
_ALONE = "run it alone with --only"
_AT_WORK_S = 1.0
"""When the child that builds has surely been given its job."""


class TensorRT:
    """A child that builds each network it is given and, unless ``build_only``, runs it."""

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
            (folder / "network").write_bytes(network.to_bytes())
            torch.save([dict(sample) for sample in samples], folder / "samples")
            self._ask(folder)
            if self._build_only:
                return None
            answers: list[list[T]] = torch.load(folder / "answers")
            return answers

    def close(self) -> None:
        """Ends the child process."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown()
            self._pool = None

    def _ask(self, folder: Path) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        work = (self._module, self._options, folder, self._build_only, self._seconds)
        try:
            self._pool.submit(build_and_run, *work).result(2 * self._seconds)
        except EngineBuildError:
            raise
        except BrokenProcessPool as error:
            self.close()
            raise DeviceError("the engine crashed", hint=_ALONE) from error
        except TimeoutError as error:
            self.close()
            said = f"the engine did not end in {self._seconds:.0f} s"
            raise DeviceError(said, hint=_ALONE) from error
        except Exception as error:  # anybody's: PyTorch's for a kernel, TensorRT's bindings'
            self.close()  # a CUDA context may be broken for good
            raise DeviceError(f"{type(error).__name__}: {error}", hint=_ALONE) from error


def build_and_run(
    module: str, options: BuildOptions, at: Path, build_only: bool, seconds: float
) -> None:
    """In the child: builds a network and, unless ``build_only``, runs it on each sample.

    The answers are left beside it. TensorRT comes up for the next network meanwhile.
    """
    network = networks.from_bytes((at / "network").read_bytes())
    next_one = Timer(_AT_WORK_S, start_early, [module])
    next_one.daemon = True
    next_one.start()
    with _at_most(seconds):
        build_in_worker(BuildJob(module, network, (at / "weights",), at / "plan", options))
    if not build_only:
        _run(KINDS[module], network, at)


def _run(kind: str, network: Network, at: Path) -> None:
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
