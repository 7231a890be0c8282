# SPDX-License-Identifier: Apache-2.0
"""Looks at tensors inside an engine, by building engines that show them.

From release 10.0 on tensors are marked for debugging and a listener is told their values while the
engine runs; TensorRT keeps its fusions better than with further outputs. Tensors it does not tell
so, and all of them on release 8.6, become outputs of an engine of their own.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines._child import BuildJob, build_in_worker
from trtpack_runtime.engines._load import load_engine
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.mapping import FilePart
from trtpack_runtime.network import Network

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DebugJob:
    """What to build engines of: ``module`` is the TensorRT to import, ``weights`` are the files of
    the weight store, ``context`` is what the built engines are loaded with."""

    module: str
    network: Network
    weights: tuple[Path | FilePart, ...]
    options: BuildOptions
    context: LoadContext
    name: str
    tactics: bytes | None = None
    memory_bytes: int | None = None
    integrated: bool = False


class EngineProbe:
    """Answers the values of tensors inside an engine, for one set of inputs."""

    def __init__(
        self,
        trt: Any,
        job: DebugJob,
        inputs: Sequence[torch.Tensor],
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._trt, self._job, self._inputs = trt, job, tuple(inputs)
        self._on_progress = on_progress
        self._listens = hasattr(trt, "IDebugListener")

    def __call__(self, names: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """The tensors' values, in the host's memory; those TensorRT cannot show are left out.

        Raises:
            EngineBuildError: TensorRT cannot build the network.
            DeviceError: the GPU cannot serve it.
        """
        outputs = set(self._job.network.outputs)
        found: dict[str, torch.Tensor] = {}
        inner = [name for name in names if name not in outputs]
        if self._listens and inner:
            found |= self._listened(inner)
        rest = [name for name in names if name not in found]
        return found | (self._marked(rest) if rest else {})

    def _listened(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """What TensorRT tells of tensors while the engine runs; nothing where it cannot."""
        options = replace(self._job.options, debug=tuple(names))
        try:
            runner = self._built(self._job.network, options)
        except EngineBuildError:
            self._listens = False
            return {}
        listener = _listener(self._trt, self._job.context.device)
        for context in runner.contexts:
            context.set_debug_listener(listener)
            for name in names:
                context.set_tensor_debug_state(name, True)
        runner(self._inputs)
        _wait(self._job.context.device)
        return {name: listener.seen[name] for name in names if name in listener.seen}

    def _marked(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The tensors as outputs; halves where TensorRT refuses, down to the one it refuses."""
        network = self._job.network
        further = [name for name in names if name not in network.outputs]
        marked = replace(network, outputs=(*network.outputs, *further))
        try:
            runner = self._built(marked, replace(self._job.options, debug=()))
        except EngineBuildError:
            if not further:
                raise
            if len(further) == 1:
                return self._marked([n for n in names if n not in further]) if names[1:] else {}
            middle = len(names) // 2
            return self._marked(names[:middle]) | self._marked(names[middle:])
        values = dict(zip(marked.outputs, runner(self._inputs), strict=True))
        return {name: values[name].cpu() for name in names}

    def _built(self, network: Network, options: BuildOptions) -> Any:
        job = self._job
        with tempfile.TemporaryDirectory(prefix="trtpack-debug-") as folder:
            plan = Path(folder) / "engine.plan"
            build = BuildJob(
                job.module,
                network,
                job.weights,
                plan,
                options,
                job.name,
                tactics=job.tactics,
                memory_bytes=job.memory_bytes,
                integrated=job.integrated,
            )
            build_in_worker(build, self._on_progress)
            record = {"options": options.to_json()}
            context = replace(job.context, network=network, record=record)
            return load_engine(job.module, plan, context)


def _listener(trt: Any, device: torch.device) -> Any:
    class Listener(trt.IDebugListener):
        """Copies what it is shown; an exception must not pass through TensorRT."""

        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.seen: dict[str, torch.Tensor] = {}

        def process_debug_tensor(
            self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int
        ) -> bool:
            try:
                on_host = location.name == "HOST"
                sizes = tuple(shape)
                self.seen[name] = _copied(_address(addr), type.name, sizes, device, on_host, stream)
            except (ValueError, TypeError, KeyError, RuntimeError):
                self.seen.pop(name, None)  # left out, and then marked as an output
            return True

    return Listener()


def _copied(
    address: int,
    dtype: str,
    shape: tuple[int, ...],
    device: torch.device,
    on_host: bool,
    stream: int,
) -> torch.Tensor:
    """The tensor at an address, copied to the host in the stream's order."""
    import torch

    count = 1
    for size in shape:
        count *= size
    size = DTYPES[dtype].nbytes(count)
    wanted = getattr(torch, DTYPES[dtype].torch)
    if not size:
        return torch.empty(shape, dtype=wanted)
    if on_host:
        raw = torch.frombuffer(bytearray(ctypes.string_at(address, size)), dtype=torch.uint8)
    else:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, device)):
            raw = torch.as_tensor(_Memory(address, size), device=device).cpu()
    return raw.view(wanted).reshape(shape)


class _Memory:
    """Bytes on a GPU, as PyTorch takes them."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 2,
        }


def _address(capsule: Any) -> int:
    """The pointer in a capsule, whatever its name."""
    if isinstance(capsule, int):
        return capsule
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)) or 0)


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
