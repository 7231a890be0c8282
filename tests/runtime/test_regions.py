# SPDX-License-Identifier: Apache-2.0
"""Networks that layers own: saved, checked, walked, pinned around, and told to TensorRT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.emission import emitted
from tests.runtime.trt_double import RELEASES, double
from trtpack_runtime import network as networks
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import ConfigError, NetworkError
from trtpack_runtime.network import Layer, Network, Profile, Tensor
from trtpack_tools.check import check_network
from trtpack_tools.origins import Origins
from trtpack_tools.precision_pins import pin, promoted
from trtpack_tools.recorder import Recorder

LENGTH = dim("x", 0)


def loop(*, reverse: bool = False) -> Network:
    """A state that is multiplied by a constant and increased by each row of an input."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (LENGTH, 1, 4)))
    start = recorder.input(Tensor("start", "HALF", (1, 4)))
    weight = recorder.constant("HALF", (4, 4), "weight")
    recorder.constant("HALF", (4, 4), "unused")
    body = recorder.region()
    state = body.region_input(start, "state")
    row = body.region_input(start, "row")
    product = add(body, "matrix_multiply", state, weight, op0="NONE", op1="NONE")
    after = add(body, "elementwise", product, row, op="SUM")
    outputs = recorder.add(
        "scan",
        {"states": (start,), "scanned": (x,)},
        {"length": LENGTH, "axis": 0, "reverse": reverse},
        name="net/loop",
        origin="net (net.py:3)",
        regions={"body": body.finish_region([after.name, after.name])},
    )
    profile = Profile({"x": ((1, 1, 4), (3, 1, 4), (9, 1, 4))})
    return recorder.finish([tensor.name for tensor in outputs], [profile])


def choice() -> Network:
    """Both branches read one constant by name."""
    recorder = Recorder()
    given = recorder.input(Tensor("given", "BOOL", ()))
    x = recorder.input(Tensor("x", "FLOAT", (2, 4)))
    weight = recorder.constant("FLOAT", (1, 4), "weight")
    regions = {}
    for name, op in (("then", "SUM"), ("otherwise", "PROD")):
        region = recorder.region()
        inside = region.region_input(x, "inside")
        made = add(region, "elementwise", inside, weight, op=op)
        regions[name] = region.finish_region([made.name])
    (y,) = recorder.add(
        "branch", {"condition": given, "captured": (x,)}, {}, name="y", regions=regions
    )
    return recorder.finish([y.name])


def add(recorder: Recorder, kind: str, a: Tensor, b: Tensor, **attributes: Any) -> Tensor:
    names = ("input0", "input1") if kind == "matrix_multiply" else ("input1", "input2")
    (made,) = recorder.add(kind, dict(zip(names, (a, b), strict=True)), attributes, name="net/loop")
    return made


def with_region(network: Network, name: str, **changes: Any) -> Network:
    """The network with its last layer's region changed."""
    *before, last = network.layers
    region = replace(last.regions[name], **changes)
    return replace(network, layers=(*before, replace(last, regions={**last.regions, name: region})))


@pytest.mark.parametrize("network", [loop(), choice()], ids=["scan", "branch"])
def test_a_saved_network_has_its_regions(network: Network) -> None:
    check_network(network)
    again = networks.from_bytes(network.to_bytes())
    assert again == network
    assert again.digest() == network.digest()
    shorter = with_region(network, next(iter(network.layers[-1].regions)), outputs=())
    assert shorter.digest() != network.digest()


def test_a_network_without_regions_is_saved_as_ever() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2,)))
    (y,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="y")
    assert b"regions" not in recorder.finish([y.name]).to_bytes()


def test_constants_that_only_a_region_reads_are_kept() -> None:
    network = loop()
    assert set(network.constants) == {"weight"}
    (scan,) = network.layers
    assert scan.operand_names() == ["start", "x", "weight"]
    assert network.layers[0].regions["body"].constants == {}
    assert [layer.kind for layer in network.every_layer()] == [
        "scan",
        "matrix_multiply",
        "elementwise",
    ]
    assert network.every_dtype() == {"HALF"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "reads 'state', which nothing before it makes"),
        ({"outputs": ("state", "state")}, "output 'state': wanted the output of a layer"),
        ({"constants": loop().constants}, "constants and profiles are those of the network around"),
        (
            {"inputs": (Tensor("x", "HALF", (1, 4)),)},
            "region body: another value is called 'x'",
        ),
    ],
)
def test_a_wrong_region_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        check_network(with_region(loop(), "body", **changes))


def test_a_region_reads_no_tensor_of_the_network_around_it() -> None:
    network = loop()
    body = network.layers[0].regions["body"]
    first, second = body.layers
    reading = replace(second, operands={**second.operands, "input2": "start"})
    with pytest.raises(NetworkError, match="reads 'start', which nothing before it makes"):
        check_network(with_region(network, "body", layers=(first, reading)))


def test_regions_fit_their_layer() -> None:
    network = loop()
    layer = replace(network.layers[0], regions={})
    with pytest.raises(NetworkError, match="regions: wanted body, got"):
        check_network(replace(network, layers=(layer,)))
    inputs = (*network.layers[0].regions["body"].inputs, Tensor("more", "HALF", (1,)))
    with pytest.raises(NetworkError, match="region body: wanted 2 inputs, got 3"):
        check_network(with_region(network, "body", inputs=inputs))


def test_a_state_keeps_its_type() -> None:
    network = loop()
    body = network.layers[0].regions["body"]
    (*_, last) = body.layers
    cast = Layer("cast", "wide", {"input": last.outputs[0]}, {"to_type": "FLOAT"}, ("wide",))
    wide = {
        "layers": (*body.layers, cast),
        "tensors": {**body.tensors, "wide": Tensor("wide", "FLOAT", (1, 4))},
        "outputs": ("wide", "wide"),
    }
    with pytest.raises(NetworkError, match=r"region body, state: wanted HALF, got wide: FLOAT"):
        check_network(with_region(network, "body", **wide))


def test_a_loop_is_pinned_to_no_other_type() -> None:
    with pytest.raises(ConfigError, match="it owns layers, which cannot be pinned one by one"):
        pin(loop(), ["net/loop.3"])


def test_a_promoted_network_promotes_its_regions() -> None:
    assert promoted(loop()).every_dtype() == {"FLOAT"}
    check_network(promoted(loop()))


def test_a_layer_of_a_region_is_found_behind_tensorrts_names() -> None:
    found = Origins(loop()).of("net/loop_myl0_3 + net/loop.2")
    assert [(origin.kind, origin.module) for origin in found] == [
        ("matrix_multiply", "net"),
        ("elementwise", "net"),
    ]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_loop_in_tensorrt(release: str, reverse: bool) -> None:
    network = loop(reverse=reverse)
    definition = emitted(double(release), network).definition
    by_kind: dict[str, list[Any]] = {}
    for layer in definition._layers:
        by_kind.setdefault(layer._row.kind, []).append(layer)
    (iterator,), (recurrence,) = by_kind["iterator"], by_kind["recurrence"]
    last, every = by_kind["scan"]
    assert (iterator.axis, iterator.reverse) == (0, reverse)
    assert recurrence.get_input(1).name == network.layers[0].regions["body"].outputs[0]
    assert [last.kind.name, every.kind.name] == [
        "LAST_VALUE",
        "REVERSE" if reverse else "CONCATENATE",
    ]
    assert every.get_input(1) is by_kind["trip_limit"][0].get_input(0)
    assert set(definition._weight_names) == {"weight"}


@pytest.mark.parametrize("release", RELEASES)
def test_a_conditional_in_tensorrt(release: str) -> None:
    definition = emitted(double(release), choice()).definition
    kinds = [layer._row.kind for layer in definition._layers]
    assert kinds.count("entry") == kinds.count("constant") == 2
    assert set(definition._weight_names) == {"weight"}
