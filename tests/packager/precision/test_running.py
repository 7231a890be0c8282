# SPDX-License-Identifier: Apache-2.0
"""Lowered graphs on tensors: sizes as symbols, conditionals, and TF32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trtpack.accuracy.eager import as_tf32
from trtpack.capture import capture
from trtpack.lowering import lower
from trtpack.precision.ranges import Range, range_of
from trtpack.precision.running import Elsewhere, run_graph

T = torch.Tensor


def test_sizes_follow_the_inputs_and_the_data() -> None:
    class Sized(nn.Module):
        def forward(self, x: T) -> tuple[T, T]:
            flat = x.reshape(x.shape[0] * x.shape[1], -1) / x.shape[0]
            return flat, torch.nonzero(x[:, :, 0] > 0).float() * 2

    dynamic = ({0: torch.export.Dim("a"), 1: torch.export.Dim("b")},)
    captured = capture(Sized(), (torch.randn(3, 4, 5),), dynamic_shapes=dynamic)
    lower(captured)
    x = torch.randn(6, 2, 5)
    for got, wanted in zip(run_graph(captured.graph_module, {"x": x}), Sized()(x), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.slow
def test_conditionals_take_one_branch() -> None:
    class Either(nn.Module):
        def forward(self, x: T) -> T:
            return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,))

    captured = capture(Either(), (torch.ones(3),))
    lower(captured)
    for x in (torch.ones(3), -torch.ones(3)):
        (got,) = run_graph(captured.graph_module, {"x": x})
        torch.testing.assert_close(got, Either()(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [(nn.Conv2d(512, 64, 3), (1, 512, 7, 7)), (nn.Linear(2048, 256), (16, 2048))],
    ids=["conv2d", "linear"],
)
def test_products_in_float16_are_float32s_rounded_on_a_cpu(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    half, x = model.half(), torch.randn(shape).half()
    (got,) = run_graph(capture(half, (x,)).graph_module, {"input": x})
    with torch.no_grad():
        assert torch.equal(got, half.float()(x.float()).half())


class Placed(nn.Module):
    """Constants of every kind, and values made of nothing, in a branch too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(4))

    def forward(self, x: T) -> T:
        steps = torch.arange(4, device=x.device) + torch.zeros(4).to(x.dtype)
        y = self.layer(x) + self.kept * steps + torch.tensor([1.0, 2.0, 3.0, 4.0])
        return y.to("cpu").masked_fill(y > 0, 0.5)


def test_a_graph_runs_on_another_device() -> None:
    """PyTorch's meta device refuses what is left on the CPU."""
    captured = capture(Placed().eval(), (torch.randn(2, 4),))
    lower(captured)
    seen: dict[str, torch.device] = {}

    def watch(node: torch.fx.Node, value: object) -> object:
        if isinstance(value, torch.Tensor):
            seen[node.name] = value.device
        return value

    there = Elsewhere(torch.device("meta"))
    for _ in range(2):
        (answer,) = run_graph(
            captured.graph_module, {"x": torch.randn(2, 4)}, watch, elsewhere=there
        )
        assert (answer.shape, answer.device.type) == ((2, 4), "meta")
    assert {device.type for device in seen.values()} == {"meta"}
    assert {p.device.type for p in captured.graph_module.parameters()} <= {"cpu"}


def test_ranges_say_what_rounding_takes() -> None:
    half = torch.float16
    assert range_of(torch.tensor([3e4]), half).overflows(half)
    assert range_of(torch.tensor([1e4, -0.5, float("-inf")]), half) == Range(1e4)
    small = range_of(torch.tensor([1e-9, 3e-8, 0.0]), half)
    assert small.underflows(half)
    assert small.vanishing == 0.5
    assert not range_of(torch.tensor([1.0, 1e-9]), half).underflows(half)
    assert not range_of(torch.tensor([1e-9, 3e38]), torch.bfloat16).underflows(torch.bfloat16)
    assert range_of([torch.tensor([1]), torch.zeros(0)], half) == Range()


def test_tf32_keeps_ten_bits() -> None:
    x = torch.tensor([1.0, 1 + 2.0**-10, 1 + 2.0**-11 - 2.0**-20, 1 + 2.0**-11 + 2.0**-20])
    wanted = torch.tensor([1.0, 1 + 2.0**-10, 1.0, 1 + 2.0**-10])
    assert torch.equal(as_tf32(x), wanted)
    assert torch.equal(as_tf32(-x), -wanted)
    odd = torch.tensor([float("inf"), float("nan"), 0.0])
    assert torch.equal(as_tf32(odd).isnan(), odd.isnan())
    assert as_tf32(odd)[0] == float("inf")
    assert torch.equal(as_tf32(x.double()), x.double())
