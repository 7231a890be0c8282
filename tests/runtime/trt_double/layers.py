# SPDX-License-Identifier: Apache-2.0
"""Layers of a double: what ``ILayer`` answers, and what follows from its inputs by ``infer``.

Types and shapes are inferred when they are asked for, as TensorRT does; a mistake is logged and
leaves a tensor without a shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from trtpack_runtime.dims import Dim, add, floordiv, maximum, minimum, mul, owned
from trtpack_runtime.errors import NetworkError
from trtpack_tools.infer import infer

from .defaults import DEFAULTS, ENUM_PROPERTIES
from .regions import BOUNDARIES
from .rows import Row

_ARITHMETIC = {
    "SUM": add,
    "SUB": lambda a, b: add(a, mul(b, -1)),
    "PROD": mul,
    "FLOOR_DIV": floordiv,
    "MIN": minimum,
    "MAX": maximum,
}


class LayerOf:
    """``ILayer`` and ``IAttention``: inputs, outputs, and what ``infer`` says of them."""

    _network: Any
    _row: Row
    _inputs: list[Any]
    _outputs: list[Any]
    _types: dict[int, Any]
    _number: int

    def _get_name(self) -> str:
        given: str | None = self._values.get("name")
        return given or f"(Unnamed Layer* {self._number}) [{self._row.type.title()}]"

    def _set_name(self, value: str) -> None:
        self._values["name"] = str(value)

    def _get_metadata(self) -> str:
        return self._values.get("metadata", "")

    def _get_type(self) -> Any:
        own = self._values.get("type")
        return own or getattr(self._network._trt.LayerType, self._row.type)

    def _get_num_inputs(self) -> int:
        return len(self._inputs)

    def _get_num_outputs(self) -> int:
        return len(self._outputs)

    def _do_get_input(self, index: int) -> Any:
        return self._inputs[index] if index < len(self._inputs) else None

    def _do_get_output(self, index: int) -> Any:
        return self._outputs[index] if index < len(self._outputs) else None

    def _do_set_input(self, index: int, tensor: Any) -> None:
        if not isinstance(tensor, self._network._trt.ITensor):
            raise TypeError(f"ILayer.set_input(): {tensor!r} is no ITensor")
        self._inputs.extend([None] * (index + 1 - len(self._inputs)))
        self._inputs[index] = tensor

    def _set_precision(self, value: Any) -> None:
        if self._network._strong:
            self._network._complain("ILayer::setPrecision: the network is strongly typed")
        elif value.name not in ("FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "FP8"):
            self._network._complain(f"ILayer::setPrecision: a layer does not compute {value.name}")
        else:
            self._values["precision"] = value

    def _get_precision_is_set(self) -> bool:
        return "precision" in self._values

    def _do_set_output_type(self, index: int, dtype: Any) -> None:
        if self._network._strong:
            self._network._complain("ILayer::setOutputType: the network is strongly typed")
        elif not isinstance(dtype, self._network._trt.DataType):
            raise TypeError(f"ILayer.set_output_type(): {dtype!r} is no DataType")
        else:
            self._types[index] = dtype

    def _do_get_output_type(self, index: int) -> Any:
        return self._types.get(index) or self._outputs[index].dtype

    def _do_output_type_is_set(self, index: int) -> bool:
        return index in self._types

    # what the double itself asks

    _known: tuple[Any, list[tuple[str, tuple[Dim, ...]]]] | None = None

    def _results(self) -> list[tuple[str, tuple[Dim, ...]]]:
        """Type and shape of every output; a complaint in the log where the layer is wrong."""
        state = (dict(self._values), list(self._inputs), dict(self._types))
        if self._known is None or self._known[0] != state:
            self._known = (state, self._inferred())
        return self._known[1]

    def _inferred(self) -> list[tuple[str, tuple[Dim, ...]]]:
        if self._row.kind == "constant":
            weights = self._values["weights"]
            results = [(weights.dtype.name, tuple(self._values["shape"]))]
        elif self._row.kind == "shape":
            results = [(self._network._wide, (len(self._inputs[0]._dims()),))]
        else:
            try:
                if boundary := BOUNDARIES.get(self._row.kind):
                    results = boundary(self)
                else:
                    results = infer(self._row.kind, *self._row.read(self))
            except (NetworkError, ValueError) as error:
                self._network._complain(f"{self._get_name()}: {error}")
                results = [("FLOAT", ())] * self._row.outputs
        return [
            (
                self._types[index].name if index in self._types else dtype,
                owned(tuple(shape), f"data of layer {self._number}.{index}"),
            )
            for index, (dtype, shape) in enumerate(results)
        ]

    def _sizes(self) -> tuple[Dim, ...] | None:
        kind = self._row.kind
        if kind == "constant":
            numbers = self._values["weights"]._numbers()
            return None if numbers is None else tuple(numbers)
        if kind == "shape":
            return tuple(self._inputs[0]._dims())
        if kind not in ("slice", "elementwise", "concatenation", "shuffle", "cast"):
            return None
        values = [tensor and tensor._sizes() for tensor in self._inputs]
        if any(value is None for value in values[: 2 if kind == "elementwise" else None]):
            return None
        return self._arithmetic(values)

    def _arithmetic(self, values: Sequence[Any]) -> tuple[Dim, ...] | None:
        match self._row.kind:
            case "slice":
                start, count, step = (self._value(n)[0] for n in ("start", "shape", "stride"))
                return tuple(values[0][start + i * step] for i in range(count))
            case "elementwise":
                operate = _ARITHMETIC.get(self._value("op").name)
                if operate is None:
                    return None
                size = max(map(len, values))
                a, b = (value * size if len(value) == 1 else value for value in values)
                return tuple(operate(x, y) for x, y in zip(a, b, strict=True))
            case "concatenation":
                return tuple(itertools.chain(*values))
            case "shuffle" | "cast":
                return tuple(values[0])
        return None

    def _usual_type(self) -> Any:
        """What a release computes that is told no output type."""
        quantizes = self._row.kind == "quantize"
        return getattr(self._network._trt.DataType, "INT8" if quantizes else "FLOAT")


def layer_mixins(trt: Any, classes: Sequence[str]) -> dict[str, type]:
    """A mixin for every class of layer, with its defaults and its enum properties."""
    mixins: dict[str, type] = {"ILayer": LayerOf}
    for name in classes:
        enums = ENUM_PROPERTIES.get(name, {})
        if name not in DEFAULTS and not enums and name != "IAttention":
            continue
        names: dict[str, Any] = {"_DEFAULTS": DEFAULTS.get(name, {})}
        for key, value in enums.items():
            names |= {f"_get_{key}": _enum_reader(trt, key, value)}
            names |= {f"_set_{key}": _enum_writer(trt, name, key, value)}
        mixins[name] = type(name, (LayerOf,) if name == "IAttention" else (), names)
    return mixins


def _enum_reader(trt: Any, key: str, value: str) -> Any:
    enum, _, member = value.partition(".")
    return lambda self: self._values.get(key) or getattr(getattr(trt, enum), member)


def _enum_writer(trt: Any, owner: str, key: str, usual: str) -> Any:
    enum = usual.partition(".")[0]

    def write(self: Any, value: Any) -> None:
        if not isinstance(value, getattr(trt, enum)):
            raise TypeError(f"{owner}.{key}: {value!r} is no {enum}")
        self._values[key] = value

    return write
