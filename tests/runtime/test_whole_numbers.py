# SPDX-License-Identifier: Apache-2.0
"""Whole numbers and truth values as TensorRT 8.6 is given them, which does less with them."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from tests.runtime.emission import emitted
from tests.runtime.trt_double import double
from trtpack_runtime.network import Network, Tensor
from trtpack_tools.recorder import Recorder

N = numpy.int32
LEAST, MOST = -(2**31), 2**31 - 1
_COUNT = 200_000


def _quotients(shape: tuple[int, ...] = (_COUNT,)) -> Network:
    r = Recorder()
    a, b = (r.input(Tensor(name, "INT32", shape)) for name in "ab")
    (y,) = r.add("elementwise", {"input1": a, "input2": b}, {"op": "FLOOR_DIV"}, name="y")
    return r.finish([y.name])


def _in_float(a: Any, b: Any) -> Any:
    """What 8.6 was seen to take for ``a // b`` (``scripts/prove_layers --converters``)."""
    quotient = numpy.floor(a.astype(numpy.float32) / b.astype(numpy.float32))
    return quotient.astype(numpy.float64).clip(LEAST, MOST).astype(N)


OPERATIONS = {
    "SUM": numpy.add,
    "SUB": numpy.subtract,
    "PROD": numpy.multiply,
    "MIN": numpy.minimum,
    "MAX": numpy.maximum,
    "FLOOR_DIV": _in_float,
}


def _computed(definition: Any, given: dict[str, Any]) -> Any:
    """What the definition's layers make of 32 bits, with 8.6's quotients."""
    values = {id(tensor): given[tensor.name] for tensor in definition._inputs}
    for layer in definition._layers:
        if layer._row.kind == "constant":
            value = layer.weights._array.astype(N).reshape(layer.shape)
        else:
            a, b = (values[id(layer.get_input(i))] for i in range(2))
            value = OPERATIONS[layer.op.name](a, b)
        values[id(layer.get_output(0))] = value
    return values[id(definition._outputs[0])]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_quotients_are_right_where_8_6_divides_in_float() -> None:
    definition = emitted(double("8.6"), _quotients()).definition
    random = numpy.random.default_rng(0)

    def any_size() -> Any:
        sizes = random.integers(0, 2**31, _COUNT) >> random.integers(0, 31, _COUNT)
        return sizes * random.choice([-1, 1], _COUNT)

    edges = numpy.array([LEAST, LEAST + 1, MOST, 2**30, 2**30 + 1, -(2**30), 2**24 + 1, -77, 0, 1])
    b = any_size()
    b[: _COUNT // 4] = random.choice(edges, _COUNT // 4)
    b[b == 0] = 3
    near = b * random.integers(-5, 6, _COUNT) + random.integers(-2, 3, _COUNT)
    for a in (any_size(), random.choice(edges, _COUNT), near.clip(LEAST, MOST)):
        fits = (a != LEAST) | (b != -1)
        found = _computed(definition, {"a": a.astype(N), "b": b.astype(N)})
        numpy.testing.assert_array_equal(found[fits], (a // b)[fits])
        assert (_in_float(a, b)[fits] != (a // b)[fits]).any()


def test_later_releases_divide_by_themselves() -> None:
    for release in ("10.3", "11.1"):
        definition = emitted(double(release), _quotients((3,))).definition
        assert [layer._row.kind for layer in definition._layers] == ["elementwise"]


@pytest.mark.parametrize("mode", ["FILL", "CLAMP", "REFLECT", "STRICT_BOUNDS"])
def test_truth_values_are_padded_as_numbers(mode: str) -> None:
    r = Recorder()
    x = r.input(Tensor("x", "BOOL", (2, 3)))
    operands = {"input": x}
    if mode == "FILL":
        operands["fill"] = r.constant("BOOL", (), "true")
    within = mode == "STRICT_BOUNDS"
    sizes = {"start": (0, 0 if within else -1), "shape": (2, 2 if within else 5), "stride": (1, 1)}
    (y,) = r.add("slice", operands, {**sizes, "mode": mode}, name="y")
    network = r.finish([y.name])
    for release in ("8.6", "10.3"):
        trt = double(release)
        definition = emitted(trt, network).definition
        (part,) = (layer for layer in definition._layers if layer._row.kind == "slice")
        as_numbers = release == "8.6" and not within
        wanted = trt.DataType.INT32 if as_numbers else trt.DataType.BOOL
        assert part.get_input(0).dtype is part.get_output(0).dtype is wanted
        assert definition._outputs[0].dtype is trt.DataType.BOOL
