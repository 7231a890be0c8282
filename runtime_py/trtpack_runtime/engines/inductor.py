# SPDX-License-Identifier: Apache-2.0
"""AOTInductor: an ATen segment compiled ahead of time to a shared library.

The weights stay outside the library: it reads them where the bundle is mapped, or where they lie on
the GPU (only vectors of a few numbers become part of its code); a frozen or autotuned one has them
inside, packed for its kernels. The library belongs to one PyTorch
release, one operating system, a set of CPU instructions and, with kernels of its own for a GPU, to
that GPU's SM and one release of CUDA: its record names them.
The packager compiles it, in a process of its own.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.device import cpu
from trtpack_runtime.errors import BundleError, InternalError

from . import LoadContext, Runner, Verdict

if TYPE_CHECKING:
    import torch

MODEL_NAME = "model"
_FLAGS = (
    *("sse", "avx", "fma", "f16c", "bmi", "abm", "movbe", "popcnt", "amx"),
    *("sve", "asimd", "bf16", "i8mm"),
)
"""How the instruction sets that compilers use are called by Linux, x86 and Arm."""


_ALIGNMENT = 16
"""What compiled kernels take for granted of an address on a GPU, in bytes."""


def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """Fits a machine with the same PyTorch release, system, at least the same instructions and,
    where it was compiled for a GPU, one of the same SM."""
    has = facts.get("torch")
    if not has:
        return Verdict("impossible", "PyTorch is not installed")
    gpu = record.get("gpu")
    if gpu is not None and (verdict := _against_gpus(gpu, facts)) is not None:
        return verdict
    for what in ("os", "arch"):
        if record[what] != facts[what]:
            return Verdict("rebuild", f"built for {record[what]}, this machine is {facts[what]}")
    if release(record["torch"]) != release(has):
        return Verdict(
            "rebuild", f"built for PyTorch {release(record['torch'])}, this machine has {has}"
        )
    lacking = sorted(set(record["cpu_flags"]) - set(facts["cpu"]["flags"]))
    if lacking:
        some = ", ".join(lacking[:3]) + (" and more" if len(lacking) > 3 else "")
        return Verdict("rebuild", f"uses CPU instructions this machine lacks: {some}")
    where = facts["arch"] if gpu is None else f"SM {gpu['sm']}"
    return Verdict("exact", f"built for PyTorch {release(has)} on {where}")


def _against_gpus(gpu: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict | None:
    """What is wrong with the machine's GPUs, or None."""
    has = [str(found["sm"]) for found in facts.get("gpus", ())]
    if not has:
        found = "; ".join(facts.get("problems", ())) or "this machine has none"
        return Verdict("impossible", f"needs an NVIDIA GPU of SM {gpu['sm']}, {found}")
    if has[0] != gpu["sm"]:
        return Verdict("rebuild", f"built for SM {gpu['sm']}, this machine has SM {has[0]}")
    cuda = facts.get("torch_cuda")
    if cuda is not None and _major(cuda) != _major(gpu["cuda"]):
        return Verdict("rebuild", f"built for CUDA {gpu['cuda']}, PyTorch here is for {cuda}")
    return None


def load(blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """Loads the library and points it at the weights, where they are mapped or on the GPU.

    On a GPU it works on the caller's current stream and may be captured in a CUDA graph; calls of
    several threads are taken in one after the other, and run side by side on their streams.
    """
    graph = context.segment.graph
    if graph is None or blob is None:
        raise InternalError(f"segment {context.segment.name} is no compiled ATen segment")
    on_gpu = context.device.type == "cuda"
    _check_device(context, on_gpu)
    loader = _open(blob, context.segment.name, _index(context.device) if on_gpu else None)
    names = constant_names(graph)
    stored = {short: name for name, short in names.items()}
    constants: dict[str, torch.Tensor] = {}
    if context.record.get("weights") != "inside":
        for short in loader.get_constant_fqns():
            constants[short] = context.constants[stored[short]].detach()
        loader.load_constants(constants, False, True, True)
    threads = context.record.get("config", {}).get("cpp.threads")
    return _Runner(loader, constants, context.device, threads)


class _Runner:
    """Calls the library; ``constants`` are kept, of which that has only addresses. ``threads`` is
    how many of the CPU's it was compiled for, None for as many as there are."""

    def __init__(
        self,
        loader: Any,
        constants: Mapping[str, torch.Tensor],
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        self._loader, self.constants = loader, constants
        self.capturable = device.type == "cuda"
        self._turns: AbstractContextManager[Any] = nullcontext()
        self._ready = _contiguous
        if threads is not None:
            self._turns = _Threads(threads)
        if self.capturable:
            self._turns, self._ready = _Turns(_index(device)), _aligned

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with self._turns:
            return list(self._loader.run([self._ready(tensor) for tensor in inputs]))


class _Threads:
    """So many threads of the CPU for what PyTorch computes, in the thread that calls."""

    def __init__(self, count: int) -> None:
        self._count, self._before = count, threading.local()

    def __enter__(self) -> None:
        import torch

        self._before.count = torch.get_num_threads()
        if self._before.count != self._count:
            torch.set_num_threads(self._count)

    def __exit__(self, *error: object) -> None:
        import torch

        if self._before.count != self._count:
            torch.set_num_threads(self._before.count)


class _Turns:
    """One thread at a time, with the library's GPU as the current one."""

    def __init__(self, index: int) -> None:
        self._lock, self._index = threading.Lock(), index
        self._before = index

    def __enter__(self) -> None:
        import torch

        self._lock.acquire()
        self._before = torch.cuda.current_device()
        if self._before != self._index:
            torch.cuda.set_device(self._index)

    def __exit__(self, *error: object) -> None:
        import torch

        before = self._before
        self._lock.release()
        if before != self._index:
            torch.cuda.set_device(before)


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """Compiled for contiguous examples, the library does not look at strides."""
    return tensor.detach().contiguous()


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, and where the kernels may read several elements at a time."""
    ready = tensor.detach().contiguous()
    return ready.clone() if ready.data_ptr() % _ALIGNMENT else ready


def _check_device(context: LoadContext, on_gpu: bool) -> None:
    gpu, name = context.record.get("gpu"), context.segment.name
    if gpu is None and context.device.type != "cpu":
        raise BundleError(
            f"segment {name} is compiled for the CPU, not for {context.device}",
            hint="load the bundle with device='cpu'",
        )
    if gpu is None:
        return
    if not on_gpu:
        raise BundleError(
            f"segment {name} is compiled for {gpu['name']}, not for {context.device}",
            hint="load the bundle with device='cuda'",
        )
    import torch

    has = str(torch.version.cuda)
    if _major(has) != _major(gpu["cuda"]):
        raise BundleError(
            f"segment {name} is compiled for CUDA {gpu['cuda']}, PyTorch here is for {has}",
            hint="build the bundle again on this machine",
        )


def _major(cuda: object) -> str:
    return str(cuda).partition(".")[0]


def _index(device: torch.device) -> int:
    import torch

    return torch.cuda.current_device() if device.index is None else device.index


def constant_names(graph: Mapping[str, Any]) -> dict[str, str]:
    """Stored tensor name -> the short name the library knows it by, in order of first use."""
    names: dict[str, str] = {}

    def visit(value: Any) -> None:
        match value:
            case {"constant": str(name)}:
                names.setdefault(name, f"c{len(names)}")
            case {"list": list(items)} | list(items):
                for item in items:
                    visit(item)

    for node in graph["nodes"]:
        visit(node["args"])
        visit([node["kwargs"][key] for key in sorted(node["kwargs"])])
    visit(list(graph["outputs"]))
    return names


def release(version: str) -> str:
    """``2.6.0`` of ``2.6.0+cpu``."""
    return version.partition("+")[0]


def _open(blob: memoryview | Path, segment: str, gpu: int | None) -> Any:
    """The library, on the GPU of that number. There it leaves threads apart to its caller: what it
    does for them itself cannot be captured in a CUDA graph."""
    import torch

    loader = torch._C._aoti.AOTIModelPackageLoader
    options = (MODEL_NAME, False, 1, -1) if gpu is None else (MODEL_NAME, True, 1, gpu)
    try:
        if isinstance(blob, Path):
            return loader(str(blob.absolute()), *options)
        with tempfile.TemporaryDirectory(prefix="trtpack-") as folder:
            path = Path(folder) / "segment.pt2"
            path.write_bytes(blob)
            return loader(str(path), *options)
    except RuntimeError as error:
        raise BundleError(
            f"cannot load the compiled segment {segment}: {str(error).splitlines()[0]}",
            hint="build the bundle again on this machine",
        ) from error


def cpu_flags() -> list[str]:
    """The instruction sets of this machine's CPU that a compiler makes use of."""
    return known_flags(cpu().flags)


def known_flags(flags: Iterable[str]) -> list[str]:
    """Those of a CPU's flags that are such instruction sets."""
    return [flag for flag in flags if flag.startswith(_FLAGS)]
