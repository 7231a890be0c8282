# SPDX-License-Identifier: Apache-2.0
"""Every layer kind and whole networks, emitted for every release by a double of it.

A name that a release lacks raises in its double, so what passes here uses none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from tests.proving.trial import layer_trials
from tests.runtime.emission import bytes_of, emitted, missing
from tests.runtime.layer_cases import VARIANTS, Case
from tests.runtime.networks import NETWORKS
from tests.runtime.trt_double import RELEASES, controls, double, releases
from trtpack_runtime.dims import dim
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.engines._weak import rounded
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.network import Layer, Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

ALL = tuple(releases())
BY_KIND: dict[str, list[tuple[Case, str]]] = defaultdict(list)
for _case, _dtype in VARIANTS:
    BY_KIND[_case.kind].append((_case, _dtype))


@cache
def shared(release: str) -> Any:
    """One double a release, for tests that do not look at what it was told before."""
    return double(release)


@cache
def networks(kind: str) -> list[tuple[Network, dict[str, Any]]]:
    """Every case of a kind, static and dynamic, with its constants."""
    return [
        (case.network(dtype, dynamic=dynamic), bytes_of(case.values(dtype)))
        for case, dtype in BY_KIND[kind]
        for dynamic in sorted({False, bool(case.dynamic)})
    ]


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.parametrize("release", ALL)
def test_a_kind_is_emitted_as_declared_or_refused_in_words(release: str, kind: str) -> None:
    trt = shared(release)
    for network, weights in networks(kind):
        lacking = missing(release, network)
        if lacking is None:
            emitted(trt, network, weights)
        else:
            with pytest.raises(EngineBuildError, match=lacking):
                emit(trt, network, weights)


def test_the_releases_lack_what_is_newer() -> None:
    lacking = {
        release: {kind for kind in BY_KIND if all(missing(release, n) for n, _ in networks(kind))}
        for release in ALL
    }
    newest = {"normalization_v2", "rotary_embedding"}
    assert lacking["8.6"] == {"attention", "cumulative", *newest}
    assert lacking["10.8"] == {"attention", *newest}
    assert lacking["10.14"] == newest
    assert lacking["10.16"] == lacking["11.1"] == set()


@pytest.mark.parametrize(("release", "kinds"), [("8.6", ["elementwise"]), ("10.0", ["unary"])])
def test_8_6_negates_whole_numbers_by_a_difference(release: str, kinds: list[str]) -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "INT32", (2, dim("x", 1))))
    (y,) = recorder.add("unary", {"input": x}, {"op": "NEG"}, name="y", origin="net.py:1")
    network = recorder.finish([y.name], [Profile({"x": ((2, 1), (2, 3), (2, 9))})])
    definition = emitted(shared(release), network).definition
    parts = [part for part in definition._layers if part._row.kind != "constant"]
    assert [part._row.kind for part in parts] == kinds
    if release == "8.6":
        assert parts[0].op.name == "SUB"
        assert [parts[0].get_input(i).name for i in (0, 1)][1] == "x"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_network_is_emitted_and_built(release: str, name: str) -> None:
    trt, network = double(release), NETWORKS[name]()
    emitted(trt, network)
    weights = {constant.data: _bytes(constant) for constant in network.constants.values()}
    plan = build_plan(trt, network, weights, BuildOptions())
    (record,) = controls(trt).built
    assert plan.nbytes > 0
    assert [len(profile) for profile in record["profiles"]] == [
        len(profile.shapes) for profile in network.profiles
    ]
    assert set(record["weights"]) <= set(weights)
    wide = release != "8.6"
    declared = [network.tensors[name].dtype for name in network.outputs]
    wanted = [dtype if wide or dtype != "INT64" else "INT32" for dtype in declared]
    assert [tensor["dtype"] for tensor in record["outputs"]] == wanted


def _bytes(constant: Any) -> bytes:
    wanted = {"FLOAT": 4, "HALF": 2, "INT32": 4, "INT64": 8, "BOOL": 1, "INT8": 1}[constant.dtype]
    count = 1
    for size in constant.shape:
        count *= size
    return bytes(wanted * count)


def _half() -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (dim("x", 0), 8)))
    (y,) = recorder.add("softmax", {"input": x}, {"axes": (1,)}, name="soft", origin="net.py:1")
    (z,) = recorder.add("cast", {"input": y}, {"to_type": "FLOAT"}, name="wide")
    (i,) = recorder.add(
        "topk", {"input": z}, {"op": "MAX", "k": 1, "axes": (1,)}, name="top", origin="net.py:2"
    )[1:]
    profile = Profile({"x": ((1, 8), (4, 8), (32, 8))})
    return recorder.finish([y.name, i.name], [profile])


def test_8_6_is_held_to_the_declared_types() -> None:
    trt = double("8.6")
    build_plan(trt, _half(), {}, BuildOptions())
    (record,), (definition,) = controls(trt).built, controls(trt).networks
    flags = set(record["flags"])
    assert "FP16" in flags
    assert flags & {"OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}
    parts = {layer.name: layer for layer in definition._layers}
    assert parts["soft"].precision is trt.DataType.HALF
    assert parts["soft"].get_output_type(0) is trt.DataType.HALF
    assert parts["top"].precision is trt.DataType.FLOAT
    assert [t["dtype"] for t in record["outputs"]] == ["HALF", "INT32"]
    assert record["creation"] == ["EXPLICIT_BATCH"]


def _moves(dtype: str) -> Network:
    """A layer in HALF, and one of each kind that only moves or chooses numbers of ``dtype``."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", dtype, (2, 3)))
    half = recorder.input(Tensor("half", "HALF", (2, 3)))
    (is_more,) = recorder.add(
        "elementwise", {"input1": x, "input2": x}, {"op": "GREATER"}, name="is more"
    )
    cut = {"start": (0, 0), "shape": (2, 2), "stride": (1, 1), "mode": "STRICT_BOUNDS"}
    added = [
        recorder.add(kind, operands, attributes, name=kind)[0]
        for kind, operands, attributes in (
            ("slice", {"input": x}, cut),
            ("concatenation", {"inputs": (x, x)}, {"axis": 0}),
            ("shuffle", {"input": x}, {"first_transpose": (1, 0)}),
            ("select", {"condition": is_more, "then_input": x, "else_input": x}, {}),
            ("unary", {"input": half}, {"op": "SQRT"}),
        )
    ]
    return recorder.finish([tensor.name for tensor in added], [])


@pytest.mark.parametrize("dtype", ["FLOAT", "HALF"])
def test_8_6_is_told_where_float_is_moved_beside_half(dtype: str) -> None:
    trt = double("8.6")
    build_plan(trt, _moves(dtype), {}, BuildOptions())
    (definition,) = controls(trt).networks
    told = {layer.name for layer in definition._layers if layer._is_set("precision")}
    moves = {"slice", "concatenation", "shuffle"}
    assert told & {*moves, "select"} == (moves if dtype == "FLOAT" else set())
    for layer in definition._layers:
        if layer.name.startswith("constant"):
            assert layer.precision is layer.get_output_type(0) is trt.DataType.FLOAT
        if layer.name in {*moves, "select"}:
            assert layer.get_output_type(0) is getattr(trt.DataType, dtype)
            assert layer.name not in told or layer.precision is trt.DataType.FLOAT


READ_IN_FLOAT = {
    "select": ("condition", "then_input", "else_input"),
    "reduce": ("input",),
    "softmax": ("input",),
}


@pytest.mark.parametrize("kind", READ_IN_FLOAT)
def test_8_6_is_told_of_casts_that_it_would_round_behind(kind: str) -> None:
    recorder = Recorder()
    truth = recorder.input(Tensor("truth", "BOOL", (2, 3)))
    x, y, z = (
        recorder.add(
            "cast",
            {"input": recorder.input(Tensor(f"{name} half", "HALF", (2, 3)))},
            {"to_type": "FLOAT"},
            name=name,
        )[0]
        for name in ("read", "behind", "beside")
    )
    (y,) = recorder.add("unary", {"input": y}, {"op": "EXP"}, name="exp")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": y}, {"op": "SUM"}, name="sum")
    given = dict(zip(READ_IN_FLOAT[kind], (truth, x, y) if kind == "select" else (y,), strict=True))
    set_to = {"reduce": {"op": "SUM", "axes": (1,), "keep_dims": True}, "softmax": {"axes": (1,)}}
    (s,) = recorder.add(kind, given, set_to.get(kind, {}), name=kind)
    (last,) = recorder.add("cast", {"input": s}, {"to_type": "HALF"}, name="after")
    trt = double("8.6")
    build_plan(trt, recorder.finish([last.name, z.name], []), {}, BuildOptions())
    (definition,) = controls(trt).networks
    casts = {layer.name: layer for layer in definition._layers if layer._row.kind == "cast"}
    told = {name for name, layer in casts.items() if layer._is_set("precision")}
    assert casts.keys() - told == {"beside", "after"}
    for name in told:
        assert casts[name].precision is casts[name].get_output_type(0) is trt.DataType.FLOAT


def test_regions_and_einsum_in_float_are_rounded_beside_half() -> None:
    for case, dtype in VARIANTS:
        made = case.network(dtype, dynamic=False)
        assert list(rounded(made)) == [] or "HALF" in made.every_dtype()
    beside = {t.subject: list(rounded(t.network)) for t in layer_trials() if "beside" in t.name}
    assert {kind for kind, found in beside.items() if found} == {
        "branch",
        "einsum",
        "grid_sample",
        "scan",
    }


@pytest.mark.parametrize("release", [r for r in ALL if r != "8.6"])
def test_later_releases_follow_the_types_themselves(release: str) -> None:
    trt = double(release)
    build_plan(trt, _half(), {}, BuildOptions())
    (record,), (definition,) = controls(trt).built, controls(trt).networks
    assert not {"FP16", "OBEY_PRECISION_CONSTRAINTS"} & set(record["flags"])
    assert not any(layer._is_set("precision") or layer._types for layer in definition._layers)
    assert "STRONGLY_TYPED" in record["creation"]
    assert ("EXPLICIT_BATCH" in record["creation"]) == release.startswith("10.")


@pytest.mark.parametrize(
    ("release", "creation", "tf32"), [("8.6", 1, 7), ("10.3", 3, 6), ("11.1", 1, None)]
)
def test_numbers_are_the_releases_own(release: str, creation: int, tf32: int | None) -> None:
    trt = double(release)
    build_plan(trt, _half(), {}, BuildOptions())
    (definition,), (config,) = controls(trt).networks, controls(trt).configs
    assert definition._creation == creation
    assert not config.get_flag(trt.BuilderFlag.TF32)
    if tf32 is not None:
        assert int(trt.BuilderFlag.TF32) == tf32
        assert not config.flags >> tf32 & 1


def test_int64_is_int32_from_end_to_end_on_8_6() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "INT64", (dim("x", 0), 3)))
    w = recorder.constant("INT64", (1, 3), "w")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": w}, {"op": "SUM"}, name="y")
    network = recorder.finish([y.name], [Profile({"x": ((1, 3), (2, 3), (4, 3))})])
    small = torch.tensor([1, -2, 3])
    definition = emitted(shared("8.6"), network, bytes_of({"w": small})).definition
    (constant,) = (p for p in definition._layers if p._row.kind == "constant")
    assert constant.weights._numbers() == (1, -2, 3)
    with pytest.raises(EngineBuildError, match=r"beyond|32 bits"):
        emit(shared("8.6"), network, bytes_of({"w": small + 2**40}))


def test_a_type_a_release_lacks_is_refused() -> None:
    network = Network(
        (Tensor("x", "BF16", (2, 3)),),
        ("y",),
        {},
        (Layer("unary", "y", {"input": "x"}, {"op": "EXP"}, ("y",), "net.exp (net.py:3)"),),
        {"y": Tensor("y", "BF16", (2, 3))},
    )
    with pytest.raises(EngineBuildError, match="BF16"):
        emit(shared("8.6"), network, {})
    emitted(shared("10.3"), network)


def _names_of_a_plan(release: str) -> Iterator[str]:
    trt = double(release)
    build_plan(trt, _half(), {}, BuildOptions())
    yield from (layer["metadata"] for layer in controls(trt).built[0]["layers"])


@pytest.mark.parametrize("release", RELEASES)
def test_layers_carry_the_place_in_the_model(release: str) -> None:
    assert {"net.py:1", "net.py:2"} <= set(_names_of_a_plan(release))


@pytest.mark.parametrize("release", RELEASES)
def test_a_build_that_fails_is_told_with_the_last_errors(release: str) -> None:
    trt = double(release)
    controls(trt).fail = ("Error Code 10: could not find any implementation for node {soft}",)
    with pytest.raises(EngineBuildError, match=r"could not find any implementation") as caught:
        build_plan(trt, _half(), {}, BuildOptions())
    assert caught.value.layers == ("soft",)
