# SPDX-License-Identifier: Apache-2.0
"""Runs a TensorRT engine on torch tensors; shared by ``tensorrt`` and ``tensorrt-rtx``.

Only the name-based calls that every release from 8.6 on has are used. The engine works on the
caller's current CUDA stream; where that is the default stream, on one of its own that waits for it
and is waited for, since TensorRT synchronises the device on the default stream.

A call does no more than it must: shapes are told to TensorRT when they change, addresses too, and
the host never waits for the engine. 64-bit integers that an engine of TensorRT 8 takes as 32-bit
ones are checked while the engine starts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.errors import BundleError, DeviceError, InputMismatchError

from ._allocator import output_allocator
from ._cuda import device_error, is_capturing
from ._log import Log
from ._range_check import RangeCheck

if TYPE_CHECKING:
    import torch

_EMPTY_BYTES = 256
Shape = tuple[int, ...]
Ranges = Mapping[str, tuple[Shape, Shape]]


class _Profile:
    """One optimisation profile: the shapes it is for, its context, and what that was told last."""

    def __init__(self, index: int, ranges: Ranges) -> None:
        self.index, self.ranges = index, ranges
        self.context: Any = None
        self.shapes: tuple[Shape, ...] | None = None
        self.outputs: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.allocator: Any = None

    def holds(self, names: Sequence[str], shapes: Sequence[Shape]) -> bool:
        """Whether shapes lie within its ranges."""
        return not any(self.why_not(name, shape) for name, shape in zip(names, shapes, strict=True))

    def why_not(self, name: str, shape: Shape) -> bool:
        """Whether an input's shape lies outside."""
        low, high = self.ranges[name]
        if len(shape) != len(low):
            return True
        return any(not a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    @property
    def width(self) -> int:
        """How much it has to be ready for: elements of the largest shapes."""
        return sum(math.prod(high) for _, high in self.ranges.values())


class EngineRunner:
    """A deserialised engine; calls from several threads take turns.

    ``engine`` is TensorRT's engine, ``context`` the execution context of its first optimisation
    profile; the others are made when first needed. ``inputs`` and ``outputs`` are the engine's
    tensors in the caller's order.
    """

    def __init__(
        self,
        runtime: Any,
        engine: Any,
        log: Log,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: torch.device,
        declared: Mapping[str, str] | None = None,
        by_data: Collection[str] = (),
        trt: Any = None,
        fixed: Mapping[str, Shape] | None = None,
    ) -> None:
        """Makes room for an engine that ``_load.py`` deserialised.

        ``declared`` are the types the caller uses; INT64 stands for INT32 where the engine has
        that. ``by_data`` are the outputs whose size only the data tells; ``trt`` is the TensorRT
        module, which those need. ``fixed`` are the shapes of inputs that have one only.

        Raises:
            BundleError: the engine's tensors are others.
            DeviceError: the GPU has no memory for it.
        """
        # a context, an engine and its runtime must go in this order
        self._runtime, self.engine, self._log = runtime, engine, log
        self.inputs, self.outputs, self.device = tuple(inputs), tuple(outputs), device
        _check_names(engine, {*inputs, *outputs})
        self._by_data, self._trt = frozenset(by_data), trt
        self._types = {name: engine.get_tensor_dtype(name).name for name in (*inputs, *outputs)}
        self._narrowed = self._narrow_inputs(declared or {})
        self._widened = tuple(self._is_narrow(name, declared or {}) for name in outputs)
        self._wanted = {n: "INT64" if n in self._narrowed else self._types[n] for n in inputs}
        shapes = {name: _shape(engine, name, fixed or {}) for name in inputs}
        self._dynamic = frozenset(name for name, shape in shapes.items() if -1 in shape)
        self._profiles = sorted(self._read_profiles(shapes), key=lambda p: (p.width, p.index))
        first = next(profile for profile in self._profiles if profile.index == 0)
        self.context = first.context = self._new_context(0, None)
        self.lock = threading.Lock()
        self._own_stream: Any = None
        self.last_stream: Any = None
        self._dtypes: dict[str, torch.dtype] = {}
        self._nothing: torch.Tensor | None = None

    @property
    def contexts(self) -> list[Any]:
        """The execution contexts that were needed so far, one an optimisation profile."""
        return [profile.context for profile in self._profiles if profile.context is not None]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueues the engine and answers its outputs, which are ready on the current stream.

        Raises:
            InputMismatchError: an input of another type or device, or outside the shapes the
                engine was built for, or with integers beyond 32 bits where it has no others.
            DeviceError: TensorRT cannot run it.
        """
        import torch

        with self.lock, torch.cuda.device(self.device):
            return self.run_ready(self.ready(inputs))

    def ready(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The inputs contiguous; ``lock`` is held."""
        return [self._ready(name, tensor) for name, tensor in zip(self.inputs, inputs, strict=True)]

    def run_ready(self, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueues the engine on what ``ready`` answered; ``lock`` is held."""
        import torch

        held = [
            tensor.to(torch.int32) if name in self._narrowed else tensor
            for name, tensor in zip(self.inputs, given, strict=True)
        ]
        check = self.range_check(given, held)
        stream, caller = self._streams()
        profile = self._profile_for([tuple(tensor.shape) for tensor in held], stream)
        outputs = self._new_outputs(profile.outputs)
        self._bind(profile, held, outputs)
        self._enqueue(profile, stream, caller, [*held, *outputs.values()])
        outputs |= {name: self._allocated(profile, name, stream) for name in self._by_data}
        if check is not None:
            check.wait()
        return self.widened([outputs[name] for name in self.outputs])

    def _new_outputs(self, shapes: Mapping[str, Shape]) -> dict[str, torch.Tensor]:
        """Room for outputs, in the engine's types."""
        import torch

        return {
            name: torch.empty(shape, dtype=self._dtype(name), device=self.device)
            for name, shape in shapes.items()
        }

    def _allocated(self, profile: _Profile, name: str, stream: Any) -> torch.Tensor:
        """An output whose memory TensorRT asked for during the last run, on ``stream``."""
        output: torch.Tensor | None = profile.allocator.taken(name, self._dtype(name))
        if output is None:
            raise DeviceError(
                f"output {name}: TensorRT did not tell its size", hint="build the bundle again"
            )
        output.record_stream(stream)
        return output

    def widened(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs in the types the caller wants."""
        if not any(self._widened):
            return outputs
        return [
            tensor.long() if wide else tensor
            for tensor, wide in zip(outputs, self._widened, strict=True)
        ]

    def range_check(
        self, given: Sequence[torch.Tensor], held: Sequence[torch.Tensor]
    ) -> RangeCheck | None:
        """Begins to check that 64-bit integers are the 32-bit ones the engine gets; None where
        there are none, or where a graph is captured, which cannot be waited for."""
        if not self._narrowed or is_capturing():
            return None
        pairs = {
            name: (wide, narrow)
            for name, wide, narrow in zip(self.inputs, given, held, strict=True)
            if name in self._narrowed
        }
        return RangeCheck(pairs)

    def bind(self, held: Sequence[torch.Tensor], stream: Any) -> tuple[Any, list[torch.Tensor]]:
        """An execution context bound to these inputs and to new outputs, and those; for a graph
        to capture. ``held`` are in the engine's types, ``lock`` is held."""
        profile = self._profile_for([tuple(tensor.shape) for tensor in held], stream)
        outputs = self._new_outputs(profile.outputs)
        self._bind(profile, list(held), outputs)
        return profile.context, list(outputs.values())

    def forget(self) -> None:
        """Has every context told its shapes and addresses anew; ``lock`` is held."""
        for profile in self._profiles:
            profile.shapes = None
            profile.addresses.clear()

    def engine_dtype(self, name: str) -> torch.dtype:
        """The type the engine has for one of its tensors."""
        return self._dtype(name)

    def _ready(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        have = by_torch(tensor.dtype).name
        if have != self._wanted[name] or tensor.device != self.device:
            raise InputMismatchError(
                f"input {name}: wanted {self._wanted[name]} on {self.device}, "
                f"got {have} on {tensor.device}",
                hint="convert the input before the call",
            )
        return tensor.detach().contiguous()

    def _profile_for(self, shapes: Sequence[Shape], stream: Any) -> _Profile:
        """The narrowest profile that holds the shapes, told of them."""
        for profile in self._profiles:
            if profile.shapes == tuple(shapes):
                return profile
        for profile in self._profiles:
            if profile.holds(self.inputs, shapes):
                self._tell_shapes(profile, shapes, stream)
                return profile
        raise self._outside(shapes)

    def _outside(self, shapes: Sequence[Shape]) -> InputMismatchError:
        """What is wrong with shapes that no profile holds."""
        given = dict(zip(self.inputs, shapes, strict=True))
        wrong = [n for n, s in given.items() if all(p.why_not(n, s) for p in self._profiles)]
        name = (wrong or list(self.inputs))[0]
        ranges = " or ".join(
            dict.fromkeys(
                "from {} to {}".format(*(list(shape) for shape in profile.ranges[name]))
                for profile in self._profiles
            )
        )
        return InputMismatchError(
            f"input {name}: the engine takes shapes {ranges}, got {list(given[name])}",
            hint="build again with a wider --input range",
        )

    def _tell_shapes(self, profile: _Profile, shapes: Sequence[Shape], stream: Any) -> None:
        if profile.context is None:
            profile.context = self._new_context(profile.index, stream)
        if self._by_data and profile.allocator is None:
            self._set_allocator(profile)
        context, before = profile.context, len(self._log.errors)
        profile.shapes = None
        for name, shape in zip(self.inputs, shapes, strict=True):
            if name in self._dynamic and not context.set_input_shape(name, shape):
                raise InputMismatchError(
                    f"input {name}: the engine does not take the shape {list(shape)}: "
                    f"{self._said(before)}",
                    hint="build again with a wider --input range",
                )
        known = [name for name in self.outputs if name not in self._by_data]
        outputs = {name: tuple(context.get_tensor_shape(name)) for name in known}
        for name, shape in outputs.items():
            if any(size < 0 for size in shape):
                raise DeviceError(
                    f"output {name}: TensorRT does not know its shape: {self._said(before)}",
                    hint="build the bundle again",
                )
        profile.outputs, profile.shapes = outputs, tuple(shapes)

    def _bind(
        self, profile: _Profile, inputs: list[torch.Tensor], outputs: Mapping[str, torch.Tensor]
    ) -> None:
        known, context = profile.addresses, profile.context
        for name, tensor in (*zip(self.inputs, inputs, strict=True), *outputs.items()):
            address = tensor.data_ptr() or self._somewhere()
            if known.get(name) != address:
                context.set_tensor_address(name, address)
                known[name] = address

    def _set_allocator(self, profile: _Profile) -> None:
        profile.allocator = output_allocator(self._trt, self.device)
        for name in self._by_data:
            if not profile.context.set_output_allocator(name, profile.allocator):
                raise DeviceError(
                    f"output {name}: TensorRT takes no allocator", hint="build the bundle again"
                )

    def _streams(self) -> tuple[Any, Any]:
        """The stream to work on, and the caller's."""
        import torch

        caller = torch.cuda.current_stream()
        if caller != torch.cuda.default_stream():
            return caller, caller
        self._own_stream = self._own_stream or torch.cuda.Stream()
        return self._own_stream, caller

    def _enqueue(
        self, profile: _Profile, stream: Any, caller: Any, tensors: Sequence[torch.Tensor]
    ) -> None:
        before = len(self._log.errors)
        if stream is not caller:
            stream.wait_stream(caller)
        # a context has one scratch memory: a call waits for the last one on another stream
        if self.last_stream not in (None, stream) and not is_capturing():
            stream.wait_stream(self.last_stream)
        self.last_stream = stream
        if not profile.context.execute_async_v3(stream.cuda_stream):
            profile.shapes = None
            profile.addresses.clear()
            raise device_error(self._log.errors[before:]) or DeviceError(
                f"TensorRT cannot run the engine: {self._said(before)}",
                hint="run trtpack doctor to see what this device has",
            )
        if stream is not caller:
            for tensor in tensors:  # the allocator knows only the stream they were made on
                tensor.record_stream(stream)
            caller.wait_stream(stream)

    def _new_context(self, index: int, stream: Any) -> Any:
        before = len(self._log.errors)
        context = self.engine.create_execution_context()
        if context is not None and index:
            if context.set_optimization_profile_async(index, stream.cuda_stream):
                stream.synchronize()
            else:
                context = None
        if context is None:
            raise DeviceError(
                f"TensorRT cannot make room for the engine: {self._said(before)}",
                hint="free GPU memory, or build for a smaller largest shape",
            )
        return context

    def _read_profiles(self, shapes: Mapping[str, Shape]) -> list[_Profile]:
        profiles = []
        for index in range(max(1, self.engine.num_optimization_profiles)):
            ranges = {name: (shape, shape) for name, shape in shapes.items()}
            for name in self._dynamic:
                low, _, high = map(tuple, self.engine.get_tensor_profile_shape(name, index))
                ranges[name] = (low, high)
            profiles.append(_Profile(index, ranges))
        return profiles

    def _is_narrow(self, name: str, declared: Mapping[str, str]) -> bool:
        return declared.get(name) == "INT64" and self._types[name] == "INT32"

    def _narrow_inputs(self, declared: Mapping[str, str]) -> dict[str, None]:
        """The inputs that are INT64 to the caller and INT32 to the engine."""
        return {name: None for name in self.inputs if self._is_narrow(name, declared)}

    def _dtype(self, name: str) -> torch.dtype:
        if name not in self._dtypes:
            import torch

            self._dtypes[name] = getattr(torch, DTYPES[self._types[name]].torch)
        return self._dtypes[name]

    def _somewhere(self) -> int:
        """Some memory for a tensor without elements; TensorRT takes no null."""
        if self._nothing is None:
            import torch

            self._nothing = torch.empty(_EMPTY_BYTES, dtype=torch.uint8, device=self.device)
        return self._nothing.data_ptr()

    def _said(self, before: int) -> str:
        return "; ".join(self._log.errors[before:][-3:]) or "it gave no reason"


def _shape(engine: Any, name: str, fixed: Mapping[str, Shape]) -> Shape:
    """An input's shape, -1 where it is open.

    TensorRT 8.6 calls it invalid in an engine whose outputs are sized by data and whose inputs have
    no open size.
    """
    try:
        return tuple(engine.get_tensor_shape(name))
    except ValueError as error:  # invalid dimensions: there are -1 of them
        if name not in fixed:
            raise BundleError(
                f"TensorRT tells no shape of the engine's input {name}",
                hint="build the bundle again",
            ) from error
        return fixed[name]


def _check_names(engine: Any, wants: set[str]) -> None:
    has = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if has != wants:
        raise BundleError(
            "the engine is of another segment",
            hint="build the bundle again",
            wants=sorted(wants),
            has=sorted(has),
        )
