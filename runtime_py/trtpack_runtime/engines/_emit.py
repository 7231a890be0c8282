# SPDX-License-Identifier: Apache-2.0
"""Replays a portable network into TensorRT's ``INetworkDefinition``.

Needs only the standard library and a TensorRT module, which the caller imports and passes as
``trt``: ``tensorrt`` 8.6 to 11.x or ``tensorrt_rtx``. Enum values are looked up by name, since
their numbers change between releases. Types are declared in the network; TensorRT 10 and later are
told to follow them (strong typing), 8.6 is held to them layer by layer (``_weak.py``).

TensorRT 8.6 has no INT64: what the network declares so is INT32 there, from the engine's inputs to
its outputs, and constants are narrowed. The runner (``_execute.py``) converts at the border.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Constant, Layer, Network, Tensor

from . import _by_data, _moves, _plugins, _regions
from ._cuda import started
from ._layers import EMITTERS
from ._log import Log, log_of
from ._memory import weights_at
from ._release import creation_flags, is_rtx
from ._shapes import Shapes
from ._weak import casts_read_in_float, hold_constant, hold_types, is_mixed
from ._widened import Given, is_widened, widened

Weights = Mapping[str, Any]
"""Stored name -> an object with the buffer protocol, or with ``.buffer`` that has it."""

_FAMILIES = (_by_data, _moves, _plugins, _regions)
_WEIGHTS_WHERE_CONSTANT = frozenset({"kernel"})
_NAMELESS = frozenset({"power"})
"""TensorRT does not find these weights again when it is told their name."""
_REPLACEABLE = frozenset({"FLOAT", "HALF", "BF16", "FP8", "INT8"})
_METADATA_LENGTH, _WORDS_LENGTH = 1000, 300
_HINT = "keep the operator in PyTorch with --torch-op, or report the layer"


@dataclass
class Emitted:
    """A network definition with everything that must live as long as it: builder, log, weights."""

    trt: Any
    builder: Any
    definition: Any
    log: Log
    strong: bool = True
    """Whether TensorRT follows the network's types by itself."""
    kept: list[Any] = field(default_factory=list)
    others_errors: int = 0
    """How many errors the log, which a process has one of, holds of what was emitted before."""

    @property
    def errors(self) -> list[str]:
        """What TensorRT complained of since this was begun."""
        return self.log.errors[self.others_errors :]


def emit(
    trt: Any,
    network: Network,
    weights: Weights,
    *,
    strong: bool | None = None,
    refittable: bool = False,
    debug: Sequence[str] = (),
) -> Emitted:
    """The network as TensorRT's own definition; weights are passed by address, never copied.

    Args:
        trt: the TensorRT module.
        network: the portable network.
        weights: its stored tensors by name.
        strong: whether TensorRT follows the network's types by itself; None where it can. A DLA
            before TensorRT 11 takes only networks held to their types layer by layer.
        refittable: marks the stored tensors as replaceable, where single ones can be marked.
        debug: tensors to watch while the engine runs.

    Raises:
        EngineBuildError: TensorRT refused a layer; the message names it and its origin and ends
            with TensorRT's own words.
        DeviceError: there is no GPU for this TensorRT.
    """
    if strong is None:
        strong = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    others_errors = len(log_of(trt).errors)
    log, builder = started(trt, "Builder")
    definition = builder.create_network(creation_flags(trt, strong=strong))
    emitted = Emitted(trt, builder, definition, log, strong, [weights], others_errors)
    is_wide = not strong and is_widened(network)
    given = widened(network, weights) if is_wide else Given(network)
    emitter = Emitter(emitted, given, weights)
    for tensor in given.network.inputs:
        emitter.add_input(tensor)
    for layer in given.network.layers:
        emitter.add_layer(layer)
    for name in network.outputs:
        emitter.mark_output(network.tensors[name])
    for name in debug:
        emitter.watch(name)
    emitter.name_weights(refittable=refittable)
    return emitted


class Emitter:
    """A network definition under construction; what the functions of ``_layers.py`` work with."""

    def __init__(self, emitted: Emitted, given: Given, weights: Weights) -> None:
        self.trt, self.definition = emitted.trt, emitted.definition
        self.shapes = Shapes(self)
        self._log, self._kept = emitted.log, emitted.kept
        self._network, self._weights = given.network, {**weights, **given.made}
        self._made, self._untold = given.made, given.untold
        self._tensors: dict[str, Any] = {}
        self._stored: dict[tuple[str, str, int], Any] = {}
        self._read: list[tuple[str, Constant, Any]] = []
        self._names = {layer.name: 1 for layer in given.network.every_layer()}
        self._outside: Callable[[str], Any] | None = None
        self._where, self._layer, self._errors_before = "the network", "", len(emitted.log.errors)
        self._strong = emitted.strong
        self._marks = hasattr(self.definition, "mark_weights_refittable")
        self._mixed = not emitted.strong and (bool(given.untold) or is_mixed(given.network))
        self._told = casts_read_in_float(given.network) if self._mixed else frozenset[str]()

    # what TensorRT is given

    def add_input(self, tensor: Tensor) -> None:
        """Declares a network input; equal sizes get one name, so TensorRT knows they are equal."""
        with self._blaming(f"input {tensor}"):
            shape = tuple(d if isinstance(d, int) else -1 for d in tensor.shape)
            added = self.made(
                self.definition.add_input(tensor.name, self.dtype(tensor.dtype), shape)
            )
            for axis, size in enumerate(tensor.shape):
                if not isinstance(size, int):
                    added.set_dimension_name(axis, str(size))
            self._tensors[tensor.name] = added

    def add_layer(self, layer: Layer) -> None:
        """Adds one layer and holds its outputs against what the network declares."""
        where = f"{layer.kind} {layer.name!r}" + f" ({layer.origin})" * bool(layer.origin)
        with self._blaming(where, layer.name):
            if layer.kind not in EMITTERS:
                raise self._error("this release of trtpack-runtime cannot emit that kind")
            if not self.has(KINDS[layer.kind].method):
                raise self._error("this TensorRT has no such layer")
            operands = {name: self._operand(layer, name) for name in layer.operands}
            outputs = EMITTERS[layer.kind](self, **operands, **layer.attributes, **layer.regions)
            for index, part in enumerate(outputs.layers):
                if index:
                    self.name(part, layer.name)
                else:
                    part.name = layer.name
                if hasattr(part, "metadata"):  # IAttention has it from 10.15 on
                    part.metadata = layer.origin[:_METADATA_LENGTH]
                if self._mixed and layer.name not in self._untold:
                    hold_types(self, part, layer, self._network, self._told)
            for name, tensor in zip(layer.outputs, outputs.tensors, strict=True):
                tensor.name = name
                self._hold_against(self._network.tensors[name], tensor)
                self._tensors[name] = tensor

    def mark_output(self, tensor: Tensor) -> None:
        """Makes a layer's output one of the network's, in the declared type."""
        with self._blaming(f"output {tensor}"):
            self.definition.mark_output(self._tensors[tensor.name])
            if not self._strong:  # it would be FLOAT
                self._tensors[tensor.name].dtype = self.dtype(tensor.dtype)

    def watch(self, name: str) -> None:
        """Makes a tensor one that can be read while the engine runs."""
        with self._blaming(f"debug tensor {name!r}"):
            if name not in self._tensors:
                raise self._error("the network has no such tensor")
            if not self.definition.mark_debug(self._tensors[name]):
                raise self._error("TensorRT does not take it")

    def name_weights(self, *, refittable: bool) -> None:
        """Gives weights their stored name, by which they can be refitted.

        TensorRT knows weights by address and refuses a name where two types are read from one
        address; such bytes stay without, and so do weights that were widened. Where single
        weights can be made replaceable, those with a name are, but for integers: shapes may
        follow from them.
        """
        forms: dict[str, set[tuple[str, int]]] = {}
        for _, constant, _ in self._read:
            form = (constant.dtype, math.prod(constant.shape))
            forms.setdefault(constant.data, set()).add(form)
        done, kept = set[str](), self._network.constants_scaled()
        for operand, constant, weights in self._read:
            if operand in _NAMELESS or len(forms[constant.data]) > 1 or 0 in constant.shape:
                continue
            if constant.data in done or constant.data in self._made:
                continue
            done.add(constant.data)
            with self._blaming(f"constant {constant.name!r}"):
                if not self.definition.set_weights_name(weights, constant.data):
                    raise self._error("TensorRT does not take its name")
                is_free = constant.dtype in _REPLACEABLE and constant.name not in kept
                if refittable and is_free and self._marks:
                    self.definition.mark_weights_refittable(constant.data)

    # what emitting functions use

    def dtype(self, name: str) -> Any:
        """TensorRT's value of a type; INT64 is INT32 where the release has no wider one.

        Release 8 has the name FP8, and says that it is not supported.
        """
        types = self.trt.DataType
        old = not hasattr(types, "INT64")
        if name == "INT64" and old:
            name = "INT32"
        if not hasattr(types, name) or (name == "FP8" and old):
            raise self._error(f"this TensorRT has no type {name}")
        return getattr(types, name)

    def enum(self, kind: str, member: str) -> Any:
        """A member of one of TensorRT's enums, by name."""
        value = getattr(getattr(self.trt, kind, None), member, None)
        if value is None:
            raise self._error(f"this TensorRT has no {kind}.{member}")
        return value

    def made(self, added: Any) -> Any:
        """What an ``add_*`` call answered; raises with the log where it is None."""
        if added is None:
            raise self._error("TensorRT made no layer of it")
        return added

    def kept(self, value: Any) -> Any:
        """``value``, which lives as long as the definition."""
        self._kept.append(value)
        return value

    def has(self, method: str) -> bool:
        """Whether this release's network definition has a method."""
        return hasattr(self.definition, method)

    def constant(self, dtype: str, shape: tuple[int, ...], values: tuple[float, ...]) -> Any:
        """A small constant made here, as a tensor."""
        code = {"FLOAT": "f", "INT64": "q", "INT32": "i"}[dtype]
        packed = struct.pack(f"={len(values)}{code}", *values)
        weights = self._weights_at(dtype, packed, len(values), "a constant")
        return self.made(self.definition.add_constant(shape, weights)).get_output(0)

    def name(self, layer: Any, wanted: str) -> None:
        """Names a layer that the network does not have; TensorRT wants every name once."""
        count = self._names[wanted] = self._names.get(wanted, 0) + 1
        layer.name = wanted if count == 1 else f"{wanted} #{count}"

    def no_weights(self, like: Any = None) -> Any:
        """Empty weights, which TensorRT takes as absent; in ``like``'s type where given."""
        return self.trt.Weights() if like is None else self.trt.Weights(like.dtype)

    def tensor(self, name: str) -> Any:
        """A value as a TensorRT tensor; a constant becomes a layer when first read as one."""
        if name not in self._tensors:
            outside = self._outside
            self._tensors[name] = outside(name) if outside else self._constant(name)
        return self._tensors[name]

    def region(
        self,
        network: Network,
        inputs: Sequence[Any],
        enter: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        """Adds a region's layers and answers its outputs.

        Where tensors from outside may not be read as they are, ``enter`` brings one in, once for
        each that is read; constants and sizes are then made anew within.
        """
        inner = copy.copy(self)
        inner._network = replace(network, constants=self._network.constants)
        given = dict(zip((tensor.name for tensor in network.inputs), inputs, strict=True))
        if enter is None:
            inner._tensors, inner._outside = given, self.tensor
        else:
            inner._tensors, inner.shapes = {}, Shapes(inner)

            def outside(name: str) -> Any:
                if name in self._network.constants:
                    return inner._constant(name)
                return enter(given[name] if name in given else self.tensor(name))

            inner._outside = outside
        for layer in network.layers:
            inner.add_layer(layer)
        return [inner.tensor(name) for name in network.outputs]

    # within

    def _constant(self, name: str) -> Any:
        constant = self._network.constants[name]
        if constant.dtype == "BOOL" and not is_rtx(self.trt):  # NvInfer.h: no BOOL constants
            return self._truths(constant)
        weights = self._of(constant)
        added = self.made(self.definition.add_constant(constant.shape, weights))
        self.name(added, f"constant {name}")
        if self._mixed and constant.data not in self._made:
            hold_constant(self, added, constant, self._network)
        return added.get_output(0)

    def _operand(self, layer: Layer, name: str) -> Any:
        value = layer.operands[name]
        if not isinstance(value, str):
            return [self.tensor(item) for item in value]
        row = next(operand for operand in KINDS[layer.kind].operands if operand.name == name)
        constant = self._network.constants.get(value)
        if constant is not None and (row.constant or name in _WEIGHTS_WHERE_CONSTANT):
            return self._of(constant, name)
        if row.constant:
            raise self._error(f"TensorRT takes {name} as weights, so it must be a constant")
        return self.tensor(value)

    def _truths(self, constant: Constant) -> Any:
        """A BOOL constant, as numbers and a cast."""
        numbers = struct.pack(f"={math.prod(constant.shape)}i", *self._bytes(constant))
        weights = self._weights_at(
            "INT32", numbers, math.prod(constant.shape), f"constant {constant.name!r}"
        )
        added = self.made(self.definition.add_constant(constant.shape, weights))
        self.name(added, f"constant {constant.name}")
        cast = self.made(self.definition.add_cast(added.get_output(0), self.dtype("BOOL")))
        self.name(cast, f"truths {constant.name}")
        return cast.get_output(0)

    def _bytes(self, constant: Constant) -> memoryview:
        """The constant's stored bytes."""
        stored: Any = self._weights[constant.data]
        buffer = memoryview(stored.buffer if hasattr(stored, "buffer") else stored)
        count = math.prod(constant.shape)
        wanted = DTYPES[constant.dtype].nbytes(count)
        if buffer.nbytes != wanted:
            raise self._error(f"{constant.data!r} has {buffer.nbytes} bytes, wanted {wanted}")
        return buffer.cast("B")

    def _of(self, constant: Constant, operand: str = "") -> Any:
        """The constant as weights, by address; one stored tensor stays at one address."""
        count = math.prod(constant.shape)
        form = (constant.data, constant.dtype, count)
        if form not in self._stored:
            buffer, what = self._bytes(constant), f"constant {constant.name!r}"
            self._stored[form] = self._weights_at(constant.dtype, buffer, count, what)
        self._read.append((operand, constant, self._stored[form]))
        return self._stored[form]

    def _weights_at(self, dtype: str, buffer: Any, count: int, what: str) -> Any:
        self.dtype(dtype)
        try:
            weights, held = weights_at(self.trt, dtype, buffer, count)
        except OverflowError as error:
            raise self._error(f"{what} {error}") from error
        self._kept.append(held)
        return weights

    def _hold_against(self, declared: Tensor, made: Any) -> None:
        shape: tuple[int, ...] = tuple(made.shape)
        wanted = declared.shape
        fits = len(shape) == len(wanted) and all(
            have in (-1, want) or not isinstance(want, int)
            for have, want in zip(shape, wanted, strict=True)
        )
        if self._strong and made.dtype != self.dtype(declared.dtype):
            fits = False
        if not fits:
            raise self._error(f"wanted {declared}, TensorRT answers {made.dtype.name}{list(shape)}")

    @contextmanager
    def _blaming(self, where: str, layer: str = "") -> Iterator[None]:
        """Raises for any error TensorRT logs meanwhile: setters refuse a value without a word."""
        self._where, self._layer, self._errors_before = where, layer, len(self._log.errors)
        try:
            yield
        except (RuntimeError, ValueError, TypeError) as error:  # the bindings' words
            raise self._error(" ".join(str(error).split())[:_WORDS_LENGTH]) from error
        if len(self._log.errors) > self._errors_before:
            raise self._error("TensorRT refused it")

    def _error(self, problem: str) -> EngineBuildError:
        said = self._log.errors[self._errors_before :]
        text = "; ".join([f"{self._where}: {problem}", *said[-3:]])
        return EngineBuildError(text, hint=_HINT, layers=(self._layer,) if self._layer else ())
