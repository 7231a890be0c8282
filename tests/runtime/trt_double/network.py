# SPDX-License-Identifier: Apache-2.0
"""Network definitions of a double: tensors, layers, weights, and the network they make.

Types and shapes are inferred when they are asked for, as TensorRT does; a mistake is logged and
leaves a tensor without a shape. Sizes are symbols, so that shape arithmetic is followed through.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

from trtpack_runtime.dims import Dim, add, dim, floordiv, maximum, minimum, mul, owned
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.errors import NetworkError
from trtpack_tools.infer import infer

from .layers import DEFAULTS, ENUM_PROPERTIES, ROWS, Row
from .regions import BOUNDARIES, add_if_conditional, add_loop

_LARGEST_SHAPE_TENSOR = 64
_ARITHMETIC = {
    "SUM": add,
    "SUB": lambda a, b: add(a, mul(b, -1)),
    "PROD": mul,
    "FLOOR_DIV": floordiv,
    "MIN": minimum,
    "MAX": maximum,
}


class Weights:
    """Weights by address, or on 8.6 as the numpy array they are."""

    def _do_init(self, type: Any = None, ptr: int = 0, count: int = 0, a: Any = None) -> None:
        trt = self._trt
        if type is not None and not isinstance(type, trt.DataType):
            type, a = None, type  # one argument that is no type is an array
        if a is not None:
            self._array = a
            type, ptr, count = _type_of(trt, a), a.ctypes.data, a.size
        self._dtype, self._ptr, self._count = type or trt.DataType.FLOAT, ptr, count

    def _get_dtype(self) -> Any:
        return self._dtype

    def _get_size(self) -> int:
        return int(self._count)

    def _get_nbytes(self) -> int:
        return DTYPES[self._dtype.name].nbytes(self._count)

    def _do_len(self) -> int:
        return int(self._count)

    def _numbers(self) -> tuple[int, ...] | None:
        """The values, where they are few and whole."""
        code = {"INT32": ctypes.c_int32, "INT64": ctypes.c_int64}.get(self._dtype.name)
        if code is None or self._count > _LARGEST_SHAPE_TENSOR:
            return None
        return tuple((code * self._count).from_address(self._ptr)) if self._count else ()


def _type_of(trt: Any, array: Any) -> Any:
    """The type of a numpy array, which the release must have a name for."""
    if not hasattr(array, "ctypes"):
        raise TypeError(f"Weights(): {type(array).__name__} is no numpy array")
    if not array.flags["C_CONTIGUOUS"]:
        raise TypeError("Weights(): the array is not contiguous")
    try:
        return getattr(trt, str(array.dtype))
    except AttributeError as error:
        raise TypeError(f"Could not implicitly convert NumPy data type {array.dtype}") from error


class TensorOf:
    """``ITensor``: an input of the network, or an output of a layer."""

    _network: Any
    _layer: Any
    _index: int

    def _get_name(self) -> str:
        return self._values.get("name") or f"{self._layer.name}_output"

    def _set_name(self, value: str) -> None:
        self._values["name"] = str(value)

    def _get_dtype(self) -> Any:
        values: dict[str, Any] = self._values
        if "dtype" in values:
            return values["dtype"]
        return getattr(self._network._trt.DataType, self._layer._results()[self._index][0])

    def _set_dtype(self, value: Any) -> None:
        if not isinstance(value, self._network._trt.DataType):
            raise TypeError(f"ITensor.dtype: {value!r} is no DataType")
        if self._network._strong:
            self._network._complain("ITensor::setType: the network is strongly typed")
        else:
            self._values["dtype"] = value

    def _get_shape(self) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._dims())

    def _get_is_network_input(self) -> bool:
        return self._layer is None

    def _get_is_network_output(self) -> bool:
        return any(self is output for output in self._network._outputs)

    def _do_set_dimension_name(self, index: int, name: str) -> None:
        self._named[index] = name

    def _do_get_dimension_name(self, index: int) -> str:
        return str(self._named.get(index, ""))

    # what the double itself asks

    _named: dict[int, str]
    _declared: tuple[int, ...] = ()

    def _dims(self) -> tuple[Dim, ...]:
        """The shape, open sizes as symbols; equal names are equal sizes."""
        if self._layer is not None:
            return tuple(self._layer._results()[self._index][1])
        name = self._get_name()
        return tuple(
            dim(self._named.get(axis) or f"{name}.{axis}", 0) if size == -1 else size
            for axis, size in enumerate(self._declared)
        )

    def _sizes(self) -> tuple[Dim, ...] | None:
        """The values of a shape tensor; None where they are not sizes."""
        return None if self._layer is None else self._layer._sizes()


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


class NetworkOf:
    """``INetworkDefinition``."""

    _trt: Any
    _strong: bool
    _creation: int
    _log: Any

    def _start(self) -> None:
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []
        self._debug: list[Any] = []
        self._refittable: list[str] = []
        self._weights: dict[int, set[tuple[str, int]]] = {}
        self._weight_names: dict[str, tuple[int, str, int]] = {}
        self._wide = "INT64" if hasattr(self._trt.DataType, "INT64") else "INT32"

    def _complain(self, text: str) -> None:
        self._log("ERROR", text)

    def _get_num_layers(self) -> int:
        return len(self._layers)

    def _get_num_inputs(self) -> int:
        return len(self._inputs)

    def _get_num_outputs(self) -> int:
        return len(self._outputs)

    def _get_flags(self) -> int:
        return self._creation

    def _do_get_flag(self, flag: Any) -> bool:
        return bool(self._creation >> int(flag) & 1)

    def _do_get_layer(self, index: int) -> Any:
        return self._layers[index]

    def _do_get_input(self, index: int) -> Any:
        return self._inputs[index]

    def _do_get_output(self, index: int) -> Any:
        return self._outputs[index]

    def _do_add_input(self, name: str, dtype: Any, shape: Sequence[int]) -> Any:
        if not isinstance(dtype, self._trt.DataType):
            raise TypeError(f"add_input(): {dtype!r} is no DataType")
        if any(tensor.name == name for tensor in self._inputs):
            self._complain(f"addInput: there is an input {name} already")
            return None
        tensor = self._tensor(None, 0)
        tensor._declared = tuple(int(size) for size in shape)
        tensor._values |= {"name": name, "dtype": dtype}
        self._inputs.append(tensor)
        return tensor

    def _tensor(self, layer: Any, index: int) -> Any:
        return self._trt.ITensor._made(network=self, layer=layer, index=index, named={})

    def _do_add_constant(self, shape: Sequence[int], weights: Any) -> Any:
        weights = self._as_weights(weights)
        row = Row("constant", "IConstantLayer", "CONSTANT", (), lambda _: ({}, {}))
        count = 1
        for size in shape:
            count *= size
        if count != len(weights):
            self._complain(f"addConstant: {len(weights)} weights for shape {tuple(shape)}")
            return None
        self._know(weights)
        return self._layer(row, [], {"shape": tuple(shape), "weights": weights})

    def _do_add_loop(self) -> Any:
        return add_loop(self)

    def _do_add_if_conditional(self) -> Any:
        return add_if_conditional(self)

    def _do_add_shape(self, input: Any) -> Any:
        return self._layer(Row("shape", "IShapeLayer", "SHAPE", (), lambda _: ({}, {})), [input])

    def _layer(self, row: Row, inputs: Sequence[Any], values: Any = None) -> Any:
        if not all(isinstance(tensor, self._trt.ITensor) for tensor in inputs):
            raise TypeError(f"add_{row.kind}(): an operand is no ITensor: {inputs}")
        made = getattr(self._trt, row.layer)._made(
            network=self,
            row=row,
            inputs=list(inputs),
            types={},
            number=len(self._layers),
        )
        made._outputs = [self._tensor(made, index) for index in range(row.outputs)]
        made._values.update(values or {})
        self._layers.append(made)
        return made

    def _added(self, row: Row, given: dict[str, Any]) -> Any:
        variadic = row.inputs[:1] and row.inputs[0].startswith("*")
        inputs = given["inputs"] if variadic else [given[name] for name in row.inputs]
        values = {}
        for name, value in given.items():
            if name not in row.properties:
                continue
            wanted = row.enums.get(name)
            if wanted and not isinstance(value, getattr(self._trt, wanted)):
                raise TypeError(f"add_{row.kind}(): {name} is {value!r}, no {wanted}")
            if name in ("kernel", "bias", "shift", "scale", "power"):
                value = self._as_weights(value)
                if name != "power":  # TensorRT does not find these again
                    self._know(value)
            values[row.properties[name]] = value
        return self._layer(row, inputs, values)

    def _as_weights(self, value: Any) -> Any:
        return value if isinstance(value, self._trt.Weights) else self._trt.Weights(value)

    def _know(self, weights: Any) -> None:
        if len(weights):
            form = (weights.dtype.name, len(weights))
            self._weights.setdefault(weights._ptr, set()).add(form)

    def _do_set_weights_name(self, weights: Any, name: str) -> bool:
        weights = self._as_weights(weights)
        forms = self._weights.get(weights._ptr, set())
        if forms != {(weights.dtype.name, len(weights))}:
            self._complain(f"setWeightsName: {name} are no weights of one layer's form")
            return False
        self._weight_names[name] = (weights._ptr, weights.dtype.name, len(weights))
        return True

    def _do_mark_weights_refittable(self, name: str) -> bool:
        self._refittable.append(name)
        return True

    def _do_mark_output(self, tensor: Any) -> None:
        if tensor.is_network_input or tensor.is_network_output:
            self._complain(f"markOutput: {tensor.name} is an input or an output already")
        else:
            self._outputs.append(tensor)

    def _do_mark_debug(self, tensor: Any) -> bool:
        self._debug.append(tensor)
        return True


def _adder(row: Row) -> Any:
    def add_layer(self: Any, **given: Any) -> Any:
        return self._added(row, given)

    return add_layer


for _method, _row in ROWS.items():
    setattr(NetworkOf, f"_do_{_method}", _adder(_row))


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
