# SPDX-License-Identifier: Apache-2.0
"""Runs a TensorRT engine on torch tensors; shared by ``tensorrt`` and ``tensorrt-rtx``.

Only the name-based calls that every release from 8.6 on has are used. The engine works on the
caller's current CUDA stream; where that is the default stream, on one of its own that waits for it
and is waited for, since TensorRT synchronises the device on the default stream.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.errors import BundleError, DeviceError, InputMismatchError

from ._log import log_of

if TYPE_CHECKING:
    import torch

_EMPTY_BYTES = 256


class EngineRunner:
    """A deserialised engine with one execution context; calls from several threads take turns."""

    def __init__(
        self,
        trt: Any,
        blob: memoryview,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: torch.device,
    ) -> None:
        """Loads a plan; ``inputs`` and ``outputs`` are the engine's tensors in the caller's order.

        Raises:
            BundleError: TensorRT cannot read the plan, or its tensors are others.
            DeviceError: the GPU has no memory for it.
        """
        import torch

        self._log = log_of(trt)
        self._device = device
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        before = len(self._log.errors)
        # a context, an engine and its runtime must go in this order
        self._runtime = trt.Runtime(self._log.logger)
        self._engine = self._runtime.deserialize_cuda_engine(blob)
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot read the engine: {self._said(before)}",
                hint="let this device build its own engine",
            )
        self._check_names()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(
                f"TensorRT cannot make room for the engine: {self._said(before)}",
                hint="free GPU memory, or build for a smaller largest shape",
            )
        self._types = {
            name: self._engine.get_tensor_dtype(name).name for name in (*inputs, *outputs)
        }
        self._lock = threading.Lock()
        self._own_stream: Any = None
        self._last = torch.cuda.Event()
        self._nothing: torch.Tensor | None = None

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueues the engine and answers its outputs, which are ready on the current stream.

        Raises:
            InputMismatchError: an input of another type or device, or outside the shapes the
                engine was built for.
            DeviceError: TensorRT cannot run it.
        """
        import torch

        with self._lock, torch.cuda.device(self._device):
            before = len(self._log.errors)
            held = [
                self._bind(name, tensor, before)
                for name, tensor in zip(self._inputs, inputs, strict=True)
            ]
            outputs = [self._allocate(name, before) for name in self._outputs]
            self._enqueue([*held, *outputs], before)
        return outputs

    def _enqueue(self, tensors: Sequence[torch.Tensor], before: int) -> None:
        import torch

        caller = torch.cuda.current_stream()
        stream = caller
        if caller == torch.cuda.default_stream():
            self._own_stream = stream = self._own_stream or torch.cuda.Stream()
            stream.wait_stream(caller)
        # the context has one scratch memory: a call on another stream waits for the last one
        stream.wait_event(self._last)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise DeviceError(
                f"TensorRT cannot run the engine: {self._said(before)}",
                hint="run trtpack doctor to see what this device has",
            )
        self._last.record(stream)
        if stream is not caller:
            for tensor in tensors:  # the allocator knows only the stream they were made on
                tensor.record_stream(stream)
            caller.wait_stream(stream)

    def _bind(self, name: str, tensor: torch.Tensor, before: int) -> torch.Tensor:
        have = by_torch(tensor.dtype).name
        if have != self._types[name] or tensor.device != self._device:
            raise InputMismatchError(
                f"input {name}: wanted {self._types[name]} on {self._device}, "
                f"got {have} on {tensor.device}",
                hint="convert the input before the call",
            )
        tensor = tensor.detach().contiguous()
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            low, _, high = (list(s) for s in self._engine.get_tensor_profile_shape(name, 0))
            raise InputMismatchError(
                f"input {name}: the engine takes shapes from {low} to {high}, "
                f"got {list(tensor.shape)}: {self._said(before)}",
                hint="build again with a wider --input range",
            )
        self._context.set_tensor_address(name, self._address(tensor))
        return tensor

    def _allocate(self, name: str, before: int) -> torch.Tensor:
        import torch

        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise DeviceError(
                f"output {name}: TensorRT does not know its shape: {self._said(before)}",
                hint="build the bundle again",
            )
        dtype = getattr(torch, DTYPES[self._types[name]].torch)
        tensor = torch.empty(shape, dtype=dtype, device=self._device)
        self._context.set_tensor_address(name, self._address(tensor))
        return tensor

    def _address(self, tensor: torch.Tensor) -> int:
        """Where a tensor is; TensorRT takes no null, so an empty one is given some memory."""
        if tensor.numel():
            return tensor.data_ptr()
        if self._nothing is None:
            import torch

            self._nothing = torch.empty(_EMPTY_BYTES, dtype=torch.uint8, device=self._device)
        return self._nothing.data_ptr()

    def _check_names(self) -> None:
        engine = self._engine
        has = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wants = {*self._inputs, *self._outputs}
        if has != wants:
            raise BundleError(
                "the engine is of another segment",
                hint="build the bundle again",
                wants=sorted(wants),
                has=sorted(has),
            )

    def _said(self, before: int) -> str:
        return "; ".join(self._log.errors[before:][-3:]) or "it gave no reason"
