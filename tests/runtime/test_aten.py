# SPDX-License-Identifier: Apache-2.0
"""Stored ATen graphs compute what the module computes, and hold nothing but data."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.runtime.graphs import dim_of, exported, stored
from trtpack import aten_encoding
from trtpack.capture import capture
from trtpack.lowering import lower
from trtpack.schemas import lacking
from trtpack_runtime import aten
from trtpack_runtime.errors import BundleError, CompileError


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.embedding(ids))
        mask = torch.ones(x.shape[1], x.shape[1], device=ids.device).tril().bool()
        x = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
        return x.reshape(x.shape[0] * x.shape[1], 8), x.split(4, dim=-1)[1]


class Unique(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = torch.unique(x)
        return values.new_zeros(values.shape[0] + 1) + float("inf")


class Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        pooled = x.sum(1).to(torch.float64)
        half = x.new_ones(x.shape[-1] // 2 * x.shape[0])
        return pooled.sum() + half.sum()


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs() * 1e-3


BATCH = torch.export.Dim("batch", min=1, max=8)
LENGTH = torch.export.Dim("length", min=2, max=16)
WIDTH = torch.export.Dim("width", min=4, max=64)
MODELS: list[Any] = [
    pytest.param(Conv(), lambda b: (torch.randn(b, 3, 8, 8),), {0: BATCH}, id="conv"),
    pytest.param(
        Tokens(), lambda b: (torch.randint(11, (b, b + 3)),), {0: BATCH, 1: LENGTH}, id="tokens"
    ),
    pytest.param(Unique(), lambda b: (torch.randint(5, (b, 7)),), {0: BATCH}, id="unique"),
    pytest.param(Halves(), lambda b: (torch.randn(1, 3, 6, 8 + b),), {3: WIDTH}, id="halves"),
    pytest.param(Spectrum(), lambda b: (torch.randn(b, 16),), {0: BATCH}, id="rfft"),
]


@pytest.mark.parametrize(("module", "make", "dynamic"), MODELS)
def test_decoded_graph_computes_the_same(module: nn.Module, make: Any, dynamic: Any) -> None:
    graph, constants = stored(module.eval(), make(2), (dynamic,))
    decoded = aten.decode(json.loads(json.dumps(graph, allow_nan=False)), constants)
    for batch in (2, 3, 5):
        inputs = make(batch)
        with torch.no_grad():
            want, got = module(*inputs), decoded(*inputs)
        for a, b in zip(want if isinstance(want, tuple) else (want,), got, strict=True):
            torch.testing.assert_close(b, a)


@pytest.mark.parametrize(("module", "make", "dynamic"), MODELS)
def test_decoded_graph_exports_again_and_encodes_to_itself(
    module: nn.Module, make: Any, dynamic: Any
) -> None:
    graph, constants = stored(module.eval(), make(2), (dynamic,))
    decoded = aten.decode(graph, constants)
    again, kept = exported(decoded, make(2), (dynamic,))
    assert kept.keys() == constants.keys()
    names = [n.name for n in again.graph.nodes if n.op == "placeholder"]
    repeated = aten_encoding.encode(again, names, dim_of(again))
    assert sorted(aten_encoding.operators(repeated)) == sorted(aten_encoding.operators(graph))


def test_constants_are_the_given_tensors() -> None:
    graph, constants = stored(Conv(), (torch.randn(1, 3, 8, 8),))
    decoded = aten.decode(graph, constants)
    assert decoded.get_parameter("conv.weight") is constants["conv.weight"]
    assert decoded.get_buffer("bn.running_mean") is constants["bn.running_mean"]


def test_a_derived_name_is_kept() -> None:
    graph = _graph([("y", "aten.mul.Tensor", [{"value": "x"}, {"constant": "a.w|bn_folded"}])])
    decoded = aten.decode(graph, {"a.w|bn_folded": torch.tensor(3.0)})
    assert decoded(torch.tensor(2.0)) == (torch.tensor(6.0),)
    assert [name for name, _ in decoded.named_buffers()] == ["a.w|bn_folded"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1.0, 2, True, complex(1, -2)])
def test_literals_survive_json(value: Any) -> None:
    encoded = json.loads(json.dumps(aten_encoding.literal(value), allow_nan=False))
    back = aten.aten_literals.from_json(encoded) if isinstance(encoded, dict) else encoded
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_inputs_with_odd_names_are_run_as_data() -> None:
    graph = _graph([("y", "aten.neg.default", [{"value": "import os; x"}])], ["import os; x"])
    assert aten.decode(graph, {})(torch.tensor(1.0)) == (torch.tensor(-1.0),)


def test_the_smaller_of_two_sizes() -> None:
    smaller = {
        "op": "min",
        "args": [{"dim": ["x", 0]}, {"op": "*", "args": [{"dim": ["x", 1]}, 2]}],
    }
    graph = _graph([("y", "aten.new_zeros.default", [{"value": "x"}, {"list": [smaller]}])])
    decoded = aten.decode(graph, {})
    assert decoded(torch.ones(3, 1))[0].shape == (2,)
    assert decoded(torch.ones(3, 9))[0].shape == (3,)


def _graph(
    nodes: list[tuple[str, str, list[Any]]], inputs: list[str] | None = None
) -> dict[str, Any]:
    return {
        "schema": aten.SCHEMA,
        "inputs": inputs or ["x"],
        "outputs": [nodes[-1][0]],
        "nodes": [{"name": n, "op": o, "args": a, "kwargs": {}} for n, o, a in nodes],
    }


@pytest.mark.parametrize(
    ("node", "said", "hint"),
    [
        (("y", "my_ops.twist.default", []), "has no operator my_ops.twist", "--import MODULE"),
        (("y", "aten.not_there.default", []), "has no operator aten.not_there", "update PyTorch"),
        (("y", "load_library.x.y", []), "has no operator load_library", "--import"),
        (("y", "aten.from_file.default", ["/etc/passwd"]), "may not call", "trust"),
        (("y", "os.system", ["true"]), "may not call", "trust"),
        (("y", "aten.neg.default", [{"value": "z"}]), "malformed", "build the bundle again"),
        (("y", "aten.neg.default", [{"constant": "w"}]), "needs the weight 'w'", "again"),
        (("y", "aten.neg.default", [{"dtype": "nn"}]), "malformed", "again"),
        (("x", "aten.neg.default", [{"value": "x"}]), "defined twice", "again"),
    ],
)
def test_a_bad_graph_is_refused(node: Any, said: str, hint: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        aten.decode(_graph([node]), {})
    assert hint in caught.value.hint


def test_a_constant_name_cannot_become_code() -> None:
    name = 'w"), exit("'
    with pytest.raises(BundleError, match="is no name of a weight"):
        aten.decode(
            _graph([("y", "aten.neg.default", [{"constant": name}])]), {name: torch.ones(1)}
        )


def test_another_format_is_refused() -> None:
    with pytest.raises(BundleError, match=r"trtpack\.aten/9"):
        aten.decode({"schema": "trtpack.aten/9"}, {})


def test_python_calls_are_not_stored() -> None:
    graph_module = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    with pytest.raises(CompileError, match="call_module node is no operator"):
        aten_encoding.encode(graph_module, ["x"])


class Numbered(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()


def test_a_number_of_the_data_is_refused_with_the_line_that_computes_with_it() -> None:
    told = r"cannot store aten.mul.Tensor at test_aten.py:\d+: it computes with a number that only"
    lowered = lower(capture(Numbered(), (torch.ones(2),))).captured
    with pytest.raises(CompileError, match=told) as raised:
        aten_encoding.encode(lowered.graph_module, ["x"])
    assert ".item()" in raised.value.hint


def test_torch_2_3_has_what_a_cnn_needs() -> None:
    graph, _ = stored(Conv(), (torch.randn(1, 3, 8, 8),))
    assert aten_encoding.needs_newer_torch(graph) == []


@pytest.mark.parametrize(
    ("node", "kwargs", "reason"),
    [
        ("aten._safe_softmax.default", {}, "aten._safe_softmax.default is newer than PyTorch 2.3"),
        (
            "aten.scaled_dot_product_attention.default",
            {"enable_gqa": True},
            "aten.scaled_dot_product_attention.default: PyTorch 2.3 has no argument 'enable_gqa'",
        ),
    ],
)
def test_newer_operators_are_told(node: str, kwargs: dict[str, Any], reason: str) -> None:
    graph = _graph([("y", node, [{"value": "x"}] * 3)])
    graph["nodes"][0]["kwargs"] = kwargs
    assert lacking(graph) == [reason]
    assert aten_encoding.needs_newer_torch(graph) == [
        f"torch>={'.'.join(torch.__version__.split('.')[:2])}"
    ]
    graph["nodes"][0]["op"] = "my_ops.twist.default"
    assert aten_encoding.needs_newer_torch(graph) == []
