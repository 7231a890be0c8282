# SPDX-License-Identifier: Apache-2.0
"""The portable network: its bytes, and everything its checker complains of."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.layer_cases import VARIANTS, Case
from trtpack_runtime import network as networks
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import BundleError, NetworkError
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor
from trtpack_tools.check import check_network
from trtpack_tools.recorder import Recorder

n = dim("x", 0)


@pytest.mark.parametrize(("case", "dtype"), VARIANTS, ids=str)
def test_every_layer_survives_its_bytes(case: Case, dtype: str) -> None:
    network = case.network(dtype, dynamic=True)
    again = networks.from_bytes(network.to_bytes())
    assert again == network
    assert again.digest() == network.digest()


@pytest.mark.parametrize(("case", "dtype"), VARIANTS, ids=str)
def test_every_layer_passes_the_check(case: Case, dtype: str) -> None:
    check_network(case.network(dtype, dynamic=True), case.values(dtype))
    check_network(case.network(dtype, dynamic=False), case.values(dtype))


def sample(**attributes: Any) -> Network:
    """``y = clip(x * w)`` with a dynamic batch."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (n, 3)))
    w = recorder.constant("FLOAT", (1, 3), "weight", {"op": "aten.view", "args": [1]})
    (p,) = recorder.add(
        "elementwise", {"input1": x, "input2": w}, {"op": "PROD"}, name="p", origin="net.py:1"
    )
    bounds = {"alpha": 0.0, "beta": 6.0} | attributes
    (y,) = recorder.add(
        "activation", {"input": p}, {"type": "CLIP"} | bounds, name="y", origin="net.py:2"
    )
    return recorder.finish([y.name], [Profile({"x": ((1, 3), (2, 3), (8, 3))})])


def test_numbers_that_json_lacks_survive() -> None:
    network = sample(alpha=-math.inf, beta=math.nan)
    text = network.to_bytes()
    assert b"NaN" not in text
    assert b"Infinity" not in text
    attributes = networks.from_bytes(text).layers[1].attributes
    assert attributes["alpha"] == -math.inf
    assert math.isnan(attributes["beta"])


def test_networks_that_differ_in_one_attribute_differ_in_their_digest() -> None:
    assert sample().digest() == sample().digest()
    assert sample(beta=6.5).digest() != sample().digest()


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.update(schema="trtpack.network/9"),
        lambda value: value.pop("layers"),
        lambda value: value["inputs"][0].update(dtype="DOUBLE"),
        lambda value: value["inputs"][0].update(shape=[{"dim": ["x", "0"]}, 3]),
        lambda value: value["layers"][0].pop("kind"),
        lambda value: value["layers"].append(7),
        lambda value: value["profiles"][0].update(x=[[1, 3]]),
        lambda value: value["profiles"][0].update(x=[[1, 3], [2, 3], [8, "3"]]),
        lambda value: value["constants"][0].update(dtype="FLOAT99"),
        lambda value: value["constants"][0].update(shape=[1, 3.5]),
        lambda value: value["layers"][1]["attributes"].update(alpha={"float": "many"}),
    ],
)
def test_a_malformed_network_is_refused(edit: Any) -> None:
    value = json.loads(sample().to_bytes())
    edit(value)
    with pytest.raises(BundleError):
        networks.from_json(value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null"])
def test_bytes_that_are_no_network_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        networks.from_bytes(data)


def edited(index: int, **changes: Any) -> Network:
    """The sample with one layer changed."""
    network = sample()
    layers = list(network.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(network, layers=tuple(layers))


def declared(name: str, **changes: Any) -> Network:
    """The sample with one declared output changed."""
    network = sample()
    tensors = dict(network.tensors)
    tensors[name] = replace(tensors[name], **changes)
    return replace(network, tensors=tensors)


def profiled(*shapes: tuple[int, ...], name: str = "x") -> Network:
    """The sample with another profile."""
    return replace(sample(), profiles=(Profile({name: shapes}),))  # type: ignore[dict-item]  # three shapes, or too few


X = Tensor("x", "FLOAT", (n, 3))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (replace(sample(), inputs=(X, X)), "input x: FLOAT[x.0, 3]: another input has that name"),
        (replace(sample(), inputs=(replace(X, dtype="DOUBLE"),)), "DOUBLE is no type of a network"),
        (
            replace(sample(), inputs=(replace(X, shape=(dim("z", 0), 3)),)),
            "a size reads z.0, which nothing before tells",
        ),
        (
            replace(sample(), constants={"weight": Constant("x", "FLOAT", (1, 3), "weight")}),
            "constant 'x': another value has that name",
        ),
        (
            replace(sample(), constants={"weight": Constant("weight", "UINT8", (1, 3), "weight")}),
            "TensorRT has no constants of type UINT8",
        ),
        (
            replace(sample(), constants={"weight": Constant("weight", "FLOAT", (1, 3), "other")}),
            "the weight store has no 'other'",
        ),
        (
            replace(sample(), constants={"weight": Constant("weight", "HALF", (1, 3), "weight")}),
            "wanted 6 bytes stored as 'weight', got 12",
        ),
        (edited(1, name="p"), "activation 'p' (net.py:2): another layer has that name"),
        (edited(1, kind="activate"), "there is no such layer kind"),
        (
            edited(0, operands={"input1": "y", "input2": "weight"}),
            "elementwise 'p' (net.py:1): reads 'y', which nothing before it makes",
        ),
        (edited(1, operands={}), "activation 'y' (net.py:2): kind activation: operand input: is"),
        (edited(1, attributes={"type": "RELU", "alpha": 1.0}), "attribute alpha: RELU takes no"),
        (edited(1, outputs=("y", "z")), "wanted 1 outputs, got 2"),
        (edited(1, outputs=("p",)), "another value is called 'p'"),
        (edited(1, outputs=("q",)), "output 'q' is not declared"),
        (
            declared("p", dtype="HALF"),
            "declares p: HALF[x.0, 3], its operands give p: FLOAT[x.0, 3]",
        ),
        (declared("y", shape=(n, 4)), "declares y: FLOAT[x.0, 4]"),
        (replace(sample(), outputs=()), "a network has at least one"),
        (replace(sample(), outputs=("y", "y")), "wanted distinct ones, got y, y"),
        (replace(sample(), outputs=("x",)), "output 'x': wanted the output of a layer"),
        (replace(sample(), profiles=()), "a network with open sizes needs at least one"),
        (replace(sample(), profiles=(Profile({}),)), "profile 0: has no shapes for the input x"),
        (profiled((2, 3), (1, 3), (8, 3)), "wanted min <= opt <= max for x, got [2, 3] [1, 3]"),
        (profiled((1, 3), (2, 3), (8, 3), name="z"), "has no shapes for the input x"),
        (profiled((1, 3), (2, 3), (8, 4)), "max of x: FLOAT[x.0, 3] must be [8, 3], got [8, 4]"),
        (profiled((1,), (2,), (8,)), "min of x: FLOAT[x.0, 3] has 1 sizes"),
    ],
)
def test_the_check_complains(network: Network, message: str) -> None:
    class Stored:
        nbytes = 12

    with pytest.raises(NetworkError, match=re.escape(message)):
        check_network(network, {"weight": Stored()})


def test_the_check_knows_where_constants_must_stand() -> None:
    x = Tensor("x", "FLOAT", (1, 3, 2, 2))
    given = Tensor("s", "FLOAT", (3,))
    scale = Layer(
        "scale_nd",
        "y",
        {"input": "x", "scale": "s"},
        {"mode": "CHANNEL", "channel_axis": 1},
        ("y",),
    )
    network = Network((x, given), ("y",), {}, (scale,), {"y": replace(x, name="y")})
    with pytest.raises(NetworkError, match="operand scale must be a constant, got 's'"):
        check_network(network)
    quantized = Constant("q", "INT8", (2, 2), "q")
    other = Layer("shuffle", "y", {"input": "q"}, {"reshape_dims": (4,)}, ("y",))
    network = Network((), ("y",), {"q": quantized}, (other,), {"y": Tensor("y", "INT8", (4,))})
    with pytest.raises(NetworkError, match="reads the INT8 constant 'q', only dequantize may"):
        check_network(network)


def test_a_size_of_a_size_an_input_lacks_is_told() -> None:
    network = sample()
    fill = Layer(
        "fill",
        "f",
        {},
        {
            "shape": (dim("x", 5),),
            "op": "LINSPACE",
            "output_type": "FLOAT",
            "alpha": 0,
            "beta": (0,),
        },
        ("f",),
    )
    tensors = dict(network.tensors) | {"f": Tensor("f", "FLOAT", (dim("x", 5),))}
    network = replace(network, layers=(*network.layers, fill), tensors=tensors)
    message = r"fill 'f': a size reads x\.5, which nothing before tells"
    with pytest.raises(NetworkError, match=message):
        check_network(network)


def test_the_recorder_keeps_only_what_an_output_needs() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2,)))
    unused = recorder.constant("FLOAT", (2,), "unused")
    recorder.add("elementwise", {"input1": x, "input2": unused}, {"op": "SUM"}, name="dead")
    ops = ("EXP", "LOG")
    outputs = [recorder.add("unary", {"input": x}, {"op": op}, name="y")[0] for op in ops]
    assert [tensor.name for tensor in outputs] == ["y", "y.2"]
    network = recorder.finish(["y.2"])
    assert [layer.name for layer in network.layers] == ["y.2"]
    assert network.constants == {}
    assert network.tensor("y.2") == outputs[1]
    assert network.tensor("x") == x
    with pytest.raises(KeyError):
        network.tensor("y")


def test_the_recorder_makes_the_same_layer_once() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2,)))
    (first,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="y")
    (again,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="z")
    (other,) = recorder.add("unary", {"input": x}, {"op": "LOG"}, name="z")
    assert again == first != other


def test_plain_data_all_the_way() -> None:
    assert all(
        dataclasses.is_dataclass(part)
        for part in (X, sample(), sample().layers[0], sample().constants["weight"])
    )
