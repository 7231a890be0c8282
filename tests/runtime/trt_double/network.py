# SPDX-License-Identifier: Apache-2.0
"""Network definitions of a double: their inputs, layers, weights and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import computing_layers, moving_layers
from .regions import add_if_conditional, add_loop
from .rows import Row


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


for _method, _row in (computing_layers.ROWS | moving_layers.ROWS).items():
    setattr(NetworkOf, f"_do_{_method}", _adder(_row))
