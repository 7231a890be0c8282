# SPDX-License-Identifier: Apache-2.0
"""Pinned layers compute in FLOAT, the network around them stays as it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.runtime import handmade, planned
from tests.runtime.trt_double import RELEASES, double
from trtpack_runtime import network as networks
from trtpack_runtime import recipes
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.reference import evaluate
from trtpack_runtime.segments import find_segment
from trtpack_tools.check import check_network
from trtpack_tools.pinned import write_pinned
from trtpack_tools.precision_pins import new_constants, pin, promoted, promoted_values
from trtpack_tools.recorder import Recorder

NETWORK, STORED = planned.deep()
HUGE = ["blocks.3/linear", "blocks.3.act/relu", "blocks.4/linear"]
"""The layers between which a value exceeds HALF."""


def stored_for(network: Network) -> dict[str, torch.Tensor]:
    """The stored tensors with those that the network's new constants need."""
    made = {
        c.data: recipes.replay(dict(c.recipe or {}), STORED)
        for c in new_constants(NETWORK, network)
    }
    return {**STORED, **made}


def inputs() -> list[torch.Tensor]:
    return [torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).half() * 100]


def answer(network: Network) -> torch.Tensor:
    return evaluate(network, stored_for(network), inputs())[0]


def test_overflow_ends_where_its_layers_are_pinned() -> None:
    truth = evaluate(promoted(NETWORK), promoted_values(NETWORK, STORED), [inputs()[0].float()])[0]
    assert not answer(NETWORK).isfinite().all()
    pinned = answer(pin(NETWORK, HUGE))
    assert pinned.dtype == torch.float16
    assert float((pinned.float() - truth).norm() / truth.norm()) < 2e-3


def test_between_pinned_layers_there_is_no_cast() -> None:
    network = pin(NETWORK, HUGE)
    casts = [layer for layer in network.layers if layer.kind == "cast"]
    assert [(c.operands["input"], c.attributes["to_type"]) for c in casts] == [
        ("blocks.2.act/relu", "FLOAT"),
        ("blocks.4/linear|float", "HALF"),
    ]
    types = {
        layer.name: {network.tensor(n).dtype for n in (*layer.operand_names(), *layer.outputs)}
        for layer in network.layers
        if layer.name in HUGE
    }
    assert types == {name: {"FLOAT"} for name in HUGE}
    others = {layer.name: layer for layer in network.layers if layer.name not in HUGE}
    for layer in NETWORK.layers:
        if layer.name not in HUGE:
            assert others[layer.name] == layer


def test_constants_get_a_twin_with_a_recipe() -> None:
    network = pin(NETWORK, ["blocks.0/linear"])
    (twin,) = new_constants(NETWORK, network)
    assert (twin.data, twin.dtype) == ("blocks.0.weight|float", "FLOAT")
    assert recipes.sources(dict(twin.recipe or {})) == ["blocks.0.weight"]
    value = recipes.replay(dict(twin.recipe or {}), STORED)
    assert torch.equal(value, STORED["blocks.0.weight"].float())
    assert "blocks.0.weight" not in network.constants
    assert networks.from_bytes(network.to_bytes()) == network


def test_an_output_keeps_its_name_and_type() -> None:
    network = pin(NETWORK, ["blocks.5.act/relu"])
    assert network.outputs == NETWORK.outputs
    assert network.tensors[network.outputs[0]].dtype == "HALF"
    assert network.layers[-1].kind == "cast"
    assert network.layers[-1].origin == "blocks.5.act (act.py:3)"


def test_every_layer_at_once() -> None:
    network = pin(NETWORK, [layer.name for layer in NETWORK.layers])
    assert [layer.kind for layer in network.layers if layer.kind == "cast"] == ["cast", "cast"]
    assert math.isfinite(float(answer(network).float().abs().sum()))


def test_pins_one_after_the_other_are_as_pins_at_once() -> None:
    once = pin(NETWORK, ["blocks.0/linear"])
    with pytest.raises(ConfigError, match="computes in FLOAT already"):
        pin(once, ["blocks.0/linear"])
    both = pin(once, ["blocks.0.act/relu"])
    check_network(both)
    assert both == pin(NETWORK, ["blocks.0/linear", "blocks.0.act/relu"])


def mixed() -> Network:
    """Layers of other kinds: indices, conditions, generated values."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (2, 4)))
    (zero,) = recorder.add(
        "fill",
        {},
        {"shape": (2, 4), "op": "LINSPACE", "output_type": "FLOAT", "alpha": 0.0,
         "beta": (0.0, 0.0)},
        name="zero",
    )  # fmt: skip
    (low,) = recorder.add("cast", {"input": zero}, {"to_type": "HALF"}, name="low")
    pair = {"input1": x, "input2": low}
    (more,) = recorder.add("elementwise", pair, {"op": "GREATER"}, name="more")
    picked = {"condition": more, "then_input": x, "else_input": low}
    (y,) = recorder.add("select", picked, {}, name="pick")
    (best, at) = recorder.add(
        "topk", {"input": y}, {"op": "MAX", "k": 2, "axes": (1,)}, name="best"
    )
    both = (best, y)
    (joined,) = recorder.add("concatenation", {"inputs": both}, {"axis": 1}, name="join")
    (flags,) = recorder.add("unary", {"input": more}, {"op": "NOT"}, name="not")
    return recorder.finish([joined.name, at.name, flags.name])


@pytest.mark.parametrize("names", [["more"], ["pick"], ["best"], ["join"], ["best", "join"]])
def test_other_kinds_of_layers(names: Sequence[str]) -> None:
    network = mixed()
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5], [-1.0, 4.0, 2.0, -3.0]]).half()
    pinned = pin(network, names)
    for got, want in zip(evaluate(pinned, {}, [x]), evaluate(network, {}, [x]), strict=True):
        assert torch.equal(got, want)
    assert [pinned.tensors[n].dtype for n in pinned.outputs] == ["HALF", "INT32", "BOOL"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("low", "cannot pin 'low': it is a cast, which computes nothing"),
        ("not", "cannot pin 'not': it computes with no floating-point numbers"),
        ("zero", "cannot pin 'zero': it computes in FLOAT already"),
        ("nothing", "the network has no layer 'nothing'"),
    ],
)
def test_what_cannot_be_pinned(name: str, error: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pin(mixed(), [name])
    assert refused.value.message == error


def test_convolution_weights_stay_weights() -> None:
    """TensorRT takes a bias as weights only, so a cast layer may not stand before it."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (1, 2, 4, 4)))
    operands = {
        "input": x,
        "kernel": recorder.constant("HALF", (3, 2, 1, 1), "conv.weight"),
        "bias": recorder.constant("HALF", (3,), "conv.bias"),
    }
    sizes = {"kernel_shape": (1, 1), "stride_nd": (1, 1), "dilation_nd": (1, 1)}
    padding = {"pre_padding": (0, 0), "post_padding": (0, 0)}
    attributes = {"num_output_maps": 3, "num_groups": 1, **sizes, **padding}
    (y,) = recorder.add("convolution_nd", operands, attributes, name="conv")
    network = pin(recorder.finish([y.name]), ["conv"])
    (conv,) = [layer for layer in network.layers if layer.kind == "convolution_nd"]
    assert {network.constants[str(conv.operands[o])].dtype for o in ("kernel", "bias")} == {"FLOAT"}


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_builds_it(release: str) -> None:
    network = pin(NETWORK, HUGE)
    buffers = {
        name: memoryview(value.contiguous().view(torch.uint8).numpy())
        for name, value in stored_for(network).items()
    }
    assert bytes(build_plan(double(release), network, buffers, BuildOptions()))


# --- whole bundles -------------------------------------------------------------------------------
NOWHERE = {"gpus": [], "problems": ["no driver"], "os": "linux", "arch": "x86_64", "tensorrt": None}


def test_a_bundle_with_pins(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    found = find_segment(bundle, "forward_0", "here")
    network = pin(NETWORK, HUGE)
    done = write_pinned(bundle, found, network, HUGE, tmp_path / "pinned.tar", NOWHERE)
    assert done.deferred == "its precision pins are new, and no driver"
    new = open_bundle(tmp_path / "pinned.tar", verify="full")
    here, other = (find_segment(new, "forward_0", name) for name in ("here", "other"))
    assert (here.network, other.network) == (network, NETWORK)
    assert here.ref is not None
    assert (here.ref.member, here.ref.deferred) == (None, done.deferred)
    assert new.manifest.report["pins"] == {"here": {"forward_0": sorted(HUGE)}}
    assert new.manifest.weights.members == ("weights/0.safetensors", "weights/1.safetensors")
    assert set(new.tensors("weights/1.safetensors")) == {
        "blocks.3.weight|float",
        "blocks.4.weight|float",
    }
    assert done.added_bytes == new.entries["weights/1.safetensors"].size
    for name, entry in bundle.entries.items():
        assert new.entries[name] == entry
    stored = {name: view.tensor() for name, view in new.weights.items()}
    assert torch.equal(evaluate(network, stored, inputs())[0], answer(network))


def test_what_nothing_needs_any_more_is_left_out(tmp_path: Path) -> None:
    path = planned.with_plan(handmade.write(tmp_path / "bundle.tar"))
    bundle = open_bundle(path)
    found = find_segment(bundle, "forward_0", "orin")
    changed = Recorder()
    x = changed.input(Tensor("x", "FLOAT", (handmade.BATCH, 4)))
    (y,) = changed.add("activation", {"input": x}, {"type": "RELU"}, name="clipped")
    network = changed.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])
    write_pinned(bundle, found, network, [], tmp_path / "new.tar", NOWHERE)
    gone = set(bundle.entries) - set(open_bundle(tmp_path / "new.tar").entries)
    assert gone == {found.segment.network, "engines/orin/forward_0.plan"}


def test_an_engine_for_rtx_is_built_at_once(tmp_path: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    (tmp_path / "plan").write_bytes(b"old")
    record = {
        "tensorrt_rtx": rtx.__version__,
        "compute_capabilities": ["SM89"],
        "options": {"optimization_level": 0},
        "os": "linux",
        "arch": "x86_64",
    }
    path = planned.write_deep(tmp_path / "deep.tar", "tensorrt-rtx", tmp_path / "plan", **record)
    bundle = open_bundle(path)
    found = find_segment(bundle, "forward_0", "here")
    facts = {**NOWHERE, "tensorrt_rtx": rtx.__version__}
    network = pin(NETWORK, HUGE)
    done = write_pinned(bundle, found, network, HUGE, tmp_path / "pinned.tar", facts)
    ref = find_segment(open_bundle(done.path), "forward_0", "here").ref
    assert ref is not None
    assert (done.deferred, ref.member) == (None, "engines/here/forward_0.plan")
    assert bytes(open_bundle(done.path).member(ref.member or "")[1:4]) == b"trt"
    assert ref.record["compute_capabilities"] == ["SM89"]
    assert ref.record["options"]["optimization_level"] == 0
    other = write_pinned(
        bundle, found, network, HUGE, tmp_path / "later.tar", {**facts, "tensorrt_rtx": "1.0"}
    )
    assert "this machine has TensorRT-RTX 1.0, not" in (other.deferred or "")


def test_a_pinned_layer_that_the_data_sizes_keeps_its_own_size() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (4, 8)))
    (found,) = recorder.add("non_zero", {"input": x}, {}, name="found")
    before = recorder.finish([found.name])
    after = pin(before, ["found"])
    assert after.tensors["found"] == before.tensors["found"]
    assert [layer.kind for layer in after.layers] == ["cast", "non_zero"]
    x = torch.randn(4, 8).half().relu()
    assert torch.equal(evaluate(after, {}, [x])[0], x.nonzero().T.int())
