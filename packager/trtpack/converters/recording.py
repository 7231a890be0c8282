# SPDX-License-Identifier: Apache-2.0
"""The layers and constants of one segment as they are recorded, and their types."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from trtpack.target import Target
from trtpack_runtime import dims, recipes
from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.layers import INTS, KINDS, NUMBERS
from trtpack_runtime.network import Network, Tensor
from trtpack_tools.recorder import Recorder

from .bounds import Bounds
from .constants import Constants
from .refusals import Refused, unless_sized_by_data

aten = torch.ops.aten

_MOVED = {
    "concatenation": ("inputs",),
    "gather": ("input",),
    "identity": ("input",),
    "scatter": ("data", "updates"),
    "select": ("then_input", "else_input"),
    "shuffle": ("input",),
    "slice": ("input", "fill"),
}
"""The kinds that only move elements, and the operands whose elements they are."""


class Recording:
    """A recorder and its constants, with UINT8 read as numbers.

    TensorRT has UINT8 only at a network's borders, and casts it from and to FLOAT and HALF only. A
    layer that moves elements of UINT8 moves their numbers, as FLOAT or INT32, and answers a UINT8
    made of them. Only an output needs that one: what reads it gets the numbers.
    """

    def __init__(
        self,
        target: Target,
        recorder: Recorder,
        constants: Constants,
        bounds: Bounds | None = None,
    ) -> None:
        self.target, self.bounds = target, bounds or Bounds()
        self.results: tuple[Tensor, ...] = ()
        self.scope, self.origin = "", ""
        self._recorder = recorder
        self._never_negative: set[str] = set()
        self._origins: dict[str, Tensor] = {}
        self._bytes: set[str] = set()
        self._before_casts: dict[str, Tensor] = {}
        self._in_other_types: dict[str, Callable[[str], Tensor | None]] = {}
        self._added: dict[Hashable, tuple[Tensor, ...]] = {}
        self._constants = constants

    @property
    def result(self) -> Tensor:
        """What PyTorch says the node's first output is; its name means nothing."""
        return self.results[0]

    def has(self, release: str) -> bool:
        """Whether the target's TensorRT is at least ``release``, such as ``"10.8"``."""
        return self.target.tensorrt_at_least(release)

    def add(self, kind: str, operands: dict[str, Any], **attributes: Any) -> Tensor:
        """Adds a layer of any kind and answers its first output."""
        return self.add_all(kind, operands, **attributes)[0]

    def add_all(
        self,
        kind: str,
        operands: dict[str, Any],
        regions: Mapping[str, Network] | None = None,
        /,
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Adds a layer of any kind and answers all its outputs.

        One that is there already, such as the mask that every attention of a model adds, is not
        added twice: its outputs are answered.

        Raises:
            Refused: the target's TensorRT fails on results as long as the data says.
        """
        if KINDS[kind].sized_by_data and (reason := unless_sized_by_data(target=self.target)):
            raise Refused(reason)
        key = None if regions else _key(kind, operands, attributes)
        if key is not None and key in self._added:
            return self._added[key]
        outputs = self._add_new(kind, operands, regions, attributes)
        if key is not None:
            self._added[key] = outputs
        return outputs

    def _add_new(
        self,
        kind: str,
        operands: dict[str, Any],
        regions: Mapping[str, Network] | None,
        attributes: dict[str, Any],
    ) -> tuple[Tensor, ...]:
        moved = self._numbers_moved(kind, operands)
        outputs = self._recorder.add(
            kind,
            {**operands, **moved},
            attributes,
            name=self.scope or kind,
            origin=self.origin,
            regions=regions,
        )
        if self._counts_up(kind, operands, attributes):
            self._never_negative.update(t.name for t in outputs)
        return tuple(map(self.as_bytes, outputs)) if moved else outputs

    def is_never_negative(self, tensor: Tensor) -> bool:
        """Whether a tensor of indices is known to count from the start only."""
        if self.is_constant(tensor):
            return bool((self.value(tensor) >= 0).all())
        return tensor.name in self._never_negative or tensor.name in self._bytes

    def _counts_up(self, kind: str, operands: dict[str, Any], attributes: dict[str, Any]) -> bool:
        if kind == "fill":
            return all(at_least_zero(v) for v in (attributes["alpha"], *attributes["beta"]))
        if kind in ("non_zero", "nms"):
            return True
        if kind not in ("shuffle", "cast", "gather", "slice") or operands.get("fill"):
            return False
        return operands["input"].dtype in INTS and self.is_never_negative(operands["input"])

    # constants

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor's value is known now."""
        return self._recorder.is_constant(tensor)

    def value(self, tensor: Tensor) -> torch.Tensor:
        """The value of a constant, in the constant's shape."""
        assert dims.is_static(tensor.shape)
        return self._constants.values[tensor.name].reshape(tensor.shape)

    def constant(self, value: torch.Tensor, name: str) -> Tensor:
        """A constant that follows from no parameter, such as a mask or a table of indices."""
        value = value.detach().contiguous()
        stored = self._constants.put_table(f"{self.scope}|{name}", value)
        return self._recorder.constant(by_torch(value.dtype).name, tuple(value.shape), stored)

    def fold(self, op: OpOverload, tensor: Tensor, *args: Any, use: str) -> Tensor:
        """``op(tensor, *args)`` evaluated now; the recipe is kept so that weights can be refitted.

        ``use`` names the derived constant: ``<parameter>|<use>``. ``args`` may be constants too.
        """
        operands = (tensor, *args)
        value = op(*(self.value(a) if isinstance(a, Tensor) else a for a in operands)).contiguous()
        dtype, shape = by_torch(value.dtype).name, tuple(value.shape)
        if self._constants.tables.issuperset(a.name for a in operands if isinstance(a, Tensor)):
            stored = self._constants.put_table(f"{tensor.name}|{use}", value)
            return self._recorder.constant(dtype, shape, stored)
        sources = [self._recipe(a) if isinstance(a, Tensor) else a for a in operands]
        recipe = recipes.call(op, sources, {})
        stored = self._constants.put(f"{tensor.name}|{use}", value, recipe)
        return self._recorder.constant(dtype, shape, stored, recipe)

    def packed(self, x: Tensor) -> Tensor:
        """A constant of whole numbers from -8 to 7 as INT4: two to a byte, the first one low."""
        assert dims.is_static(x.shape)
        known: tuple[torch.Tensor, Any] = (self.value(x), self._recipe(x))

        def step(op: OpOverload, *given: Any) -> tuple[torch.Tensor, Any]:
            values, told = zip(*(g if isinstance(g, tuple) else (g, g) for g in given), strict=True)
            return op(*values), recipes.call(op, list(told), {})

        if known[0].numel() % 2:
            flat = step(aten.reshape.default, known, [-1])
            known = step(aten.constant_pad_nd.default, flat, [0, 1])
        pairs = step(aten.reshape.default, known, [-1, 2])
        low, high = (step(aten.select.int, pairs, 1, which) for which in (0, 1))
        low = step(aten.bitwise_and.Scalar, low, 15)
        high = step(aten.bitwise_left_shift.Tensor_Scalar, high, 4)
        value, recipe = step(aten.view.dtype, step(aten.bitwise_or.Tensor, low, high), torch.uint8)
        put, name = self._constants.put, f"{x.name}|int4"
        if x.name in self._constants.tables:
            put = self._constants.put_table
            recipe = None
        return self._recorder.constant("INT4", x.shape, put(name, value, recipe), recipe)

    def _recipe(self, constant: Tensor) -> recipes.Recipe:
        return self._constants.recipes.get(constant.name, {"constant": constant.name})

    def scalar(self, value: float | int | bool, dtype: str, rank: int = 0) -> Tensor:
        """A one-element constant of ``rank`` dims, each of size 1."""
        shape = (1,) * rank
        number = torch.tensor(value).to(getattr(torch, DTYPES[dtype].torch)).reshape(shape)
        recipe = recipes.call(torch.ops.aten.full.default, [shape, value], {"dtype": number.dtype})
        text = "x".join(["literal", dtype, repr(value), str(rank)])
        return self._recorder.constant(
            dtype, shape, self._constants.put_table(text, number, recipe)
        )

    # types

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """``x`` as ``dtype``; ``x`` itself, or what it was made of, where that already is.

        An integer becomes UINT8 by what it leaves over of 256.
        """
        if x.dtype == dtype:
            return x
        x = self._origins.get(x.name, x)
        if x.dtype == dtype:
            return x
        made = self._in_other_types[x.name](dtype) if x.name in self._in_other_types else None
        if made is not None:
            return made
        if self.is_constant(x) and x.dtype in DTYPES:
            torch_dtype = getattr(torch, DTYPES[dtype].torch)
            return self.fold(
                torch.ops.prims.convert_element_type.default, x, torch_dtype, use=dtype.lower()
            )
        if dtype == "UINT8":
            return self._to_bytes(x)
        return self._cast(x, dtype)

    def offer(self, x: Tensor, in_type: Callable[[str], Tensor | None]) -> None:
        """Tells how to make ``x`` in another type at once; None where it has to be cast."""
        self._in_other_types[x.name] = in_type

    def before_cast(self, x: Tensor) -> Tensor:
        """What ``x`` was cast from; itself where it was not."""
        return self._before_casts.get(x.name, x)

    def numbers(self, x: Tensor) -> Tensor:
        """The numbers of a UINT8, as FLOAT or INT32; any other tensor itself."""
        if x.dtype != "UINT8":
            return x
        origin = self._origins.get(x.name, x)
        return origin if origin.dtype in ("FLOAT", "INT32") else self.cast(x, "FLOAT")

    def as_bytes(self, numbers: Tensor) -> Tensor:
        """UINT8 made of numbers from 0 to 255, for a border of the network."""
        self._bytes.add(numbers.name)
        return self._made_of(numbers, numbers)

    def _to_bytes(self, x: Tensor) -> Tensor:
        if x.name in self._bytes or x.dtype == "BOOL":
            return self._made_of(x, x)
        if x.dtype not in (*INTS, "INT8"):
            return self._made_of(x, self.cast(x, "INT32"))
        x = self.cast(x, "INT32") if x.dtype == "INT8" else x
        size = self.scalar(256, x.dtype, x.rank)
        over = self.add("elementwise", {"input1": x, "input2": size}, op="FLOOR_DIV")
        over = self.add("elementwise", {"input1": over, "input2": size}, op="PROD")
        left = self.add("elementwise", {"input1": x, "input2": over}, op="SUB")
        return self.as_bytes(self.cast(left, "INT32"))

    def _made_of(self, x: Tensor, numbers: Tensor) -> Tensor:
        source = x if x.dtype in ("FLOAT", "HALF") else self._cast(x, "FLOAT")
        made = self.add("cast", {"input": source}, to_type="UINT8")
        self._origins[made.name] = numbers
        return made

    def _cast(self, x: Tensor, dtype: str) -> Tensor:
        through = x
        if x.dtype == "UINT8" and dtype != "HALF":
            through = self.add("cast", {"input": x}, to_type="FLOAT")
        made = through
        if through.dtype != dtype:
            made = self.add("cast", {"input": through}, to_type=dtype)
            self._before_casts[made.name] = through
        if dtype in NUMBERS and (x.dtype == "UINT8" or x.name in self._bytes):
            self._origins[made.name] = x
            self._bytes.add(made.name)
        return made

    def _numbers_moved(self, kind: str, operands: Mapping[str, Any]) -> dict[str, Any]:
        """What a layer that moves elements of UINT8 is given in their place."""
        given = {name: operands.get(name) for name in _MOVED.get(kind, ())}
        tensors = [t for v in given.values() for t in _listed(v)]
        if {t.dtype for t in tensors} != {"UINT8"}:
            return {}
        types = {self.numbers(t).dtype for t in tensors if not self.is_constant(t)}
        dtype = types.pop() if len(types) == 1 else "FLOAT"
        moved = {name: [self.cast(t, dtype) for t in _listed(v)] for name, v in given.items()}
        return {k: v if kind == "concatenation" else v[0] for k, v in moved.items() if v}


def _listed(operand: Tensor | Sequence[Tensor] | None) -> Sequence[Tensor]:
    if operand is None:
        return ()
    return (operand,) if isinstance(operand, Tensor) else operand


def at_least_zero(value: Dim | float) -> bool:
    """Whether a number, or a size expression whatever its sizes, is 0 or more."""
    if isinstance(value, dims.Expr):
        return all(coefficient > 0 for _, coefficient in value.terms)
    return value >= 0


def _key(
    kind: str, operands: Mapping[str, Any], attributes: Mapping[str, Any]
) -> tuple[Hashable, ...]:
    """What tells a layer from others: equal keys compute equal values."""
    read = [(name, *(t.name for t in _listed(value))) for name, value in operands.items()]
    return (kind, *sorted(read), *((name, _told(attributes[name])) for name in sorted(attributes)))


def _told(value: Any) -> Hashable:
    """An attribute as it is compared: -0.0 is not 0.0, nor True 1."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_told, value))
    return value if isinstance(value, dims.Expr) else repr(value)
