# SPDX-License-Identifier: Apache-2.0
"""A graph of a GPU is lowered on the CPU: nothing in it speaks of the GPU afterwards."""

from __future__ import annotations

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from trtpack.jit.host import move_to_host


def devices(module: fx.GraphModule) -> set[str]:
    """Every device that is named in a graph, or that a value of it is on."""
    found: set[str] = {tensor.device.type for tensor in module.buffers()}
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            for leaf in pytree.tree_leaves((node.args, node.kwargs, node.meta.get("val"))):
                if isinstance(leaf, torch.device):
                    found.add(leaf.type)
                elif isinstance(leaf, torch.Tensor):
                    found.add(leaf.device.type)
    return found


def test_values_and_named_devices_are_moved() -> None:
    gpu, aten = torch.device("cuda", 0), torch.ops.aten
    graph = fx.Graph()
    x = graph.placeholder("x")
    steps = graph.call_function(aten.arange.default, (3,), {"device": gpu})
    there = graph.call_function(torch.ops.prims.device_put.default, (x, gpu))
    scaled = graph.call_function(aten.mul.Tensor, (there, graph.get_attr("table")))
    graph.output((graph.call_function(aten.add.Tensor, (scaled, steps)),))
    with FakeTensorMode():
        for node in (x, there, scaled):
            node.meta["val"] = torch.empty_strided((4, 3), (1, 4), device=gpu)
        steps.meta["val"] = torch.empty(3, dtype=torch.int64, device=gpu)
    module = fx.GraphModule({"table": torch.tensor([1.0, 2.0, 3.0])}, graph)
    assert devices(module) == {"cpu", "cuda"}
    move_to_host(module)
    assert devices(module) == {"cpu"}
    value = x.meta["val"]
    assert isinstance(value, FakeTensor)
    assert value.shape == (4, 3)
    assert value.stride() == (1, 4)
    (answered,) = module(torch.ones(4, 3))
    torch.testing.assert_close(answered, torch.tensor([1.0, 3.0, 5.0]).expand(4, 3))


def test_a_graph_on_the_cpu_keeps_its_tensors() -> None:
    with FakeTensorMode():
        graph = make_fx(torch.relu)(torch.empty(2))
    table = torch.randn(3)
    graph.register_buffer("table", table)
    before = [node.meta["val"] for node in graph.graph.nodes if "val" in node.meta]
    move_to_host(graph)
    assert graph.table is table
    after = [node.meta["val"] for node in graph.graph.nodes if "val" in node.meta]
    assert all(a is b for a, b in zip(before, after, strict=True))
