# SPDX-License-Identifier: Apache-2.0
"""Which layers TensorRT refuses, found by building parts: on a double, and on TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trtpack.bisect import MAX_BUILDS, offending_layers, part_of
from trtpack_runtime import dims
from trtpack_runtime.errors import BuildCancelled, BuildKilled, DeviceError, EngineBuildError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.check import check_network
from trtpack_tools.recorder import Recorder

REFUSED = EngineBuildError("TensorRT built no engine")


def chain(length: int, *, dynamic: bool = False) -> Network:
    """``x`` through that many activations, their names ``layer/n0``, ``layer/n1`` and so on."""
    recorder = Recorder()
    size = dims.dim("x", 0) if dynamic else 2
    value = recorder.input(Tensor("x", "FLOAT", (size, 4)))
    for i in range(length):
        kind = ("RELU", "SIGMOID", "TANH")[i % 3]
        (value,) = recorder.add("activation", {"input": value}, {"type": kind}, name=f"layer/n{i}")
    profile = Profile({"x": ((1, 4), (2, 4), (8, 4))})
    return recorder.finish([value.name], (profile,) if dynamic else ())


class Double:
    """Stands for TensorRT: refuses what ``refuses`` says of the set of a network's layers."""

    def __init__(self, refuses: Callable[[set[str]], bool], layers: tuple[str, ...] = ()) -> None:
        self.refuses, self.layers, self.built = refuses, layers, list[Network]()

    def __call__(self, network: Network) -> None:
        check_network(network)
        self.built.append(network)
        if self.refuses({layer.name for layer in network.layers}):
            raise EngineBuildError("refused", layers=self.layers)


def test_a_named_layer_is_believed() -> None:
    double = Double(lambda names: True)
    error = EngineBuildError("no", layers=("layer/n3", "(reformat)"))
    assert offending_layers(chain(9), error, double) == ("layer/n3",)
    assert double.built == []


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("bad", [0, 7, 36])
def test_one_layer_is_found_in_few_builds(bad: int, dynamic: bool) -> None:
    double = Double(lambda names: f"layer/n{bad}" in names)
    found = offending_layers(chain(37, dynamic=dynamic), REFUSED, double)
    assert found == (f"layer/n{bad}",)
    assert len(double.built) <= 14


def test_several_layers_are_all_found() -> None:
    bad = {"layer/n2", "layer/n11", "layer/n30"}
    double = Double(lambda names: bool(bad & names))
    assert set(offending_layers(chain(37), REFUSED, double)) == bad
    assert len(double.built) <= MAX_BUILDS


def test_layers_that_fail_only_together_are_narrowed_to() -> None:
    double = Double(lambda names: {"layer/n14", "layer/n17"} <= names)
    found = offending_layers(chain(32), REFUSED, double)
    assert found == tuple(f"layer/n{i}" for i in (14, 15, 16, 17))


def test_a_group_that_was_fused_is_searched() -> None:
    double = Double(lambda names: "layer/n5" in names)
    error = EngineBuildError("no", layers=("layer/n0", "layer/n8"))
    assert offending_layers(chain(9), error, double) == ("layer/n5",)


def test_what_no_part_shows_is_believed_as_named() -> None:
    network = chain(9)
    double = Double(lambda names: len(names) == 9)
    error = EngineBuildError("no", layers=("layer/n0", "layer/n8"))
    assert offending_layers(network, error, double)


def test_where_nothing_builds_no_layer_is_to_blame() -> None:
    double = Double(lambda names: True)
    assert offending_layers(chain(64), REFUSED, double) == ()
    assert len(double.built) == 1


def test_builds_are_bounded() -> None:
    double = Double(lambda names: bool(names & {f"layer/n{i}" for i in range(0, 400, 3)}))
    offending_layers(chain(400), REFUSED, double)
    assert len(double.built) == MAX_BUILDS


@pytest.mark.parametrize(
    "error",
    [BuildCancelled("stopped"), BuildKilled("out of memory"), DeviceError("no GPU")],
    ids=["cancelled", "killed", "device"],
)
def test_what_is_not_about_layers_ends_the_search(error: Exception) -> None:
    def probe(network: Network) -> None:
        raise error

    with pytest.raises(type(error)):
        offending_layers(chain(8), REFUSED, probe)


def test_a_part_has_the_tensors_across_the_cut() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (dims.dim("x", 0), 4)))
    y = recorder.input(Tensor("y", "FLOAT", (dims.dim("x", 0) * 2, 4)))
    weight = recorder.constant("FLOAT", (1, 4), "weight")
    (first,) = recorder.add("activation", {"input": y}, {"type": "RELU"}, name="a/n0")
    (second,) = recorder.add(
        "elementwise", {"input1": first, "input2": weight}, {"op": "SUM"}, name="a/n1"
    )
    (third,) = recorder.add("activation", {"input": x}, {"type": "TANH"}, name="a/n2")
    shapes = {"x": ((1, 4), (2, 4), (8, 4)), "y": ((2, 4), (4, 4), (16, 4))}
    network = recorder.finish([second.name, third.name], (Profile(shapes),))
    part = part_of(network, 1, 2)
    assert part is not None
    check_network(part)
    assert [tensor.name for tensor in part.inputs] == ["x", first.name]
    assert part.outputs == (second.name,)
    assert list(part.constants) == ["weight"]
    assert part.profiles == (Profile({"x": shapes["x"], first.name: shapes["y"]}),)


@pytest.mark.slow
def test_tensorrt_rtx_builds_parts(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    from trtpack_runtime.engines._child import BuildJob, build_in_worker
    from trtpack_runtime.engines._options import BuildOptions

    options = BuildOptions(compute_capabilities=("SM89",))
    for first, last in ((0, 3), (3, 6)):
        part = part_of(chain(6, dynamic=True), first, last)
        assert part is not None
        plan = tmp_path / f"{first}.plan"
        build_in_worker(BuildJob("tensorrt_rtx", part, (), plan, options))
        assert plan.stat().st_size
