# SPDX-License-Identifier: Apache-2.0
"""What runs in PyTorch has the parts of operators that a device's PyTorch may lack."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trtpack import aten_encoding
from trtpack.capture import capture
from trtpack.converters.symbols import Symbols
from trtpack.lowering import lower
from trtpack.partition import Plan, partition
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE
from trtpack.schemas import lacking
from trtpack.target import find_target

from .test_recognise_rotary import HALF, Turn, by_halves, by_neighbours


class Turning(nn.Module):
    """Turns its input, under a name that the graph answers."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.turn(x, torch.linspace(0, 2, 20).reshape(5, 4).to(x.dtype))


class Few(nn.Module):
    """Numbers of few bits, of each type, computed and stored."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.register_buffer("scale", torch.rand(8, generator=generator) / 10 + 0.01)
        self.register_buffer("blocks", torch.rand(5, 4, generator=generator) / 10 + 0.01)
        self.register_buffer("stored", torch.arange(-8, 8, dtype=torch.int8).reshape(1, 16)[:, :8])
        self.register_buffer("weight", torch.randn(5, 8, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = FAKE_QUANTIZE(x, self.scale, 3, "INT8") + FAKE_QUANTIZE(x, self.scale[0], None, "FP8")
        stored = DEQUANTIZE(self.stored, self.blocks[:1], 1, "INT4", x.dtype)
        return x * FAKE_QUANTIZE(self.weight, self.blocks, 1, "INT4").to(x.dtype) + stored


MODELS: dict[str, Callable[[torch.dtype], nn.Module]] = {
    "halves": lambda dtype: Turning(by_halves),
    "neighbours": lambda dtype: Turning(by_neighbours),
    "rms norm": lambda dtype: nn.RMSNorm(8, dtype=dtype),
    "few bits": lambda dtype: Few(),
    "rms norm without weights": lambda dtype: nn.RMSNorm((5, 8), 1e-3, False),
}


def planned(model: nn.Module, x: torch.Tensor, *, dynamic: bool = False) -> Plan:
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},) if dynamic else None
    made = lower(capture(model, (x,), dynamic_shapes=shapes), keep_doubles=True)
    return partition(made.captured.graph_module, find_target("cpu"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
def test_composites_are_expanded(name: str, dtype: torch.dtype) -> None:
    model, x = MODELS[name](dtype).eval(), torch.randn(2, 3, 5, 8).to(dtype)
    made = planned(model, x)
    (segment,) = made.segments
    assert {op.partition(".")[0] for op in segment.operators} == {"aten"}
    assert "aten.rms_norm.default" not in segment.operators
    assert made.outputs == segment.outputs == tuple(n.name for n in outputs(segment.graph_module))
    with torch.no_grad():
        torch.testing.assert_close(segment.graph_module(x), (model(x),))


@pytest.mark.parametrize("name", MODELS)
def test_expanded_graphs_of_open_sizes_suit_the_oldest_pytorch(name: str) -> None:
    (segment,) = planned(
        MODELS[name](torch.float32), torch.randn(2, 3, 5, 8), dynamic=True
    ).segments
    module = segment.graph_module
    graph = aten_encoding.encode(module, segment.inputs, Symbols.of(module).dim)
    assert lacking(graph) == []


def outputs(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    (values,) = module.graph.output_node().args
    return list(values)  # type: ignore[arg-type]  # a graph's outputs are a list


def test_double_precision_keeps_its_own() -> None:
    made = planned(nn.RMSNorm(8, dtype=torch.float64), torch.randn(3, 8).double())
    assert made.segments[0].operators == {"aten.rms_norm.default": 1}
