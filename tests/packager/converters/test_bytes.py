# SPDX-License-Identifier: Apache-2.0
"""Moved uint8 and int8 against eager PyTorch: of uint8, its numbers are what TensorRT moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.packager.converters import engine
from tests.packager.converters.harness import (
    EVERY,
    Case,
    Checker,
    Input,
    boolean,
    dynamic,
    given,
    i64,
    refused,
    size,
    weight,
)
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import double
from trtpack.capture import capture
from trtpack.convert import ConversionError, ConvertedSegment, Passed, convert
from trtpack.lowering import lower
from trtpack.partition import partition
from trtpack.target import find_target
from trtpack_runtime import reference

aten = torch.ops.aten
RTX = find_target("rtx-4090")
PLACES = given([[3, 0], [1, 4], [2, 2]], torch.int64)
APART = given([[3, 0], [1, 4], [2, 0]], torch.int64)
"""No row twice the same: which of two numbers is scattered to one place is not defined."""
ROWS = given([4, 0, -2], torch.int64)


def u8(*shape: int) -> Input:
    """Bytes, small and large ones."""
    return Input(torch.uint8, shape, 0, 256)


IMAGE = u8(2, 4, 6, 3)
SIGNED = dynamic(Input(torch.int8, (4, 3), -128, 128), {0: (4, 4, 8)})
ANY = dynamic(IMAGE, {0: (1, 2, 3), 1: (4, 4, 8)})

CASES = [
    *(
        Case(op, ANY, *args)
        for op, args in (
            (aten.permute.default, ([0, 3, 1, 2],)),
            (aten.flatten.using_ints, (1, 2)),
            (aten.slice.Tensor, (1, 1, -1, 2)),
            (aten.select.int, (3, 1)),
            (aten.flip.default, ([2, 3],)),
            (aten.roll.default, ([1, -2], [1, 2])),
            (aten.repeat.default, ([1, 2, 1, 1],)),
            (aten.constant_pad_nd.default, ([0, 0, 1, 2], 114)),
            (aten.pad.default, ([0, 0, 1, 2], "reflect")),
            (aten.index_select.default, (2, i64(3, low=0, high=6))),
            (aten.index.Tensor, ([None, None, i64(4, low=-6, high=6)],)),
            (aten.masked_fill.Scalar, (boolean(6, 1), 7)),
        )
    ),
    Case(aten.cat.default, [ANY, ANY], 0),
    Case(aten.cat.default, [u8(2, 3), i64(2, 3)]),
    Case(aten.cat.default, [u8(2, 3), boolean(2, 3)]),
    Case(aten.cat.default, [dynamic(u8(2, 3), {0: (1, 2, 5)}), weight(u8(1, 3))], 0),
    Case(aten.stack.default, [ANY, ANY], -1),
    Case(aten.unbind.int, IMAGE, 3),
    Case(aten.split.Tensor, IMAGE, 2, 2),
    Case(aten.expand.default, dynamic(u8(2, 1, 3), {0: (1, 2, 5)}), [-1, 4, -1]),
    Case(aten.gather.default, u8(3, 5), 1, PLACES),
    Case(aten.where.self, boolean(4, 1), u8(4, 3), u8(3)),
    Case(aten.where.self, boolean(3), u8(3), weight(u8(3))),
    Case(aten.where.ScalarOther, boolean(4, 3), u8(3), 7),
    Case(aten.scatter.src, u8(3, 5), 1, APART, u8(3, 2)),
    Case(aten.index_put.default, dynamic(u8(5, 4), {0: (5, 5, 8)}), [ROWS], u8(3, 4)),
    Case(aten.slice_scatter.default, u8(3, 6), u8(3, 2), 1, 1, 3),
    Case(aten.select.int, weight(u8(3, 4)), 0, size(1, 0, lambda n: n - 1)).beside(
        dynamic(u8(2), {0: (1, 2, 3)})
    ),
    Case(aten._to_copy.default, given([-1, 300, 7], torch.int32), dtype=torch.uint8),
    Case(aten._to_copy.default, boolean(5), dtype=torch.uint8),
    Case(aten.permute.default, SIGNED, [1, 0]),
    Case(aten.slice.Tensor, SIGNED, 0, 1, -1, 2),
    Case(aten.cat.default, [SIGNED, SIGNED], 1),
    Case(aten.gather.default, Input(torch.int8, (3, 5), -128, 128), 1, PLACES),
    Case(aten.where.self, boolean(3), SIGNED, SIGNED),
    Case(aten._to_copy.default, SIGNED, dtype=torch.float32),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_int8_before_tensorrt_10_is_refused() -> None:
    case = Case(aten.permute.default, SIGNED, [1, 0])
    reason = "TensorRT 8 takes int8 for scaled numbers only, never as they are"
    assert (refused(case, EVERY["8.6"]), refused(case, EVERY["10.3"])) == (reason, None)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


FRAME = torch.arange(2 * 4 * 6 * 3, dtype=torch.int32).mul(7).to(torch.uint8).reshape(2, 4, 6, 3)
CHAINS: dict[str, tuple[Callable[[Tensor], Any], list[str]]] = {
    "permute": (lambda x: x.permute(0, 3, 1, 2).float() / 255, ["cast", "shuffle", "elementwise"]),
    "permutes": (lambda x: x.permute(0, 3, 1, 2).float().flatten(2), ["cast", "shuffle"]),
    "half": (lambda x: x.permute(0, 3, 1, 2).half(), ["cast", "shuffle", "cast"]),
    "crop": (lambda x: x[:, 1:-1, 1:-1].float(), ["cast", "slice", "slice"]),
    "flip": (lambda x: x.flip(2).permute(0, 3, 1, 2).float(), ["cast", "slice", "shuffle"]),
    "stack": (
        lambda x: torch.stack([x, x.flip(3)]).float(),
        ["cast", "slice", "concatenation", "shuffle"],
    ),
    "there and back": (lambda x: x.float().to(torch.uint8).int().float(), ["cast"]),
    "out": (lambda x: x.permute(0, 3, 1, 2), ["cast", "shuffle", "cast"]),
    "both": (
        lambda x: (x.flip(1), x.flip(1).float() + 1),
        ["cast", "slice", "cast", "elementwise"],
    ),
    "sum": (lambda x: (x.flip(1) + x).flip(2), []),
    "mask": (lambda x: (x > 9).to(torch.uint8).flip(1) * x.flip(1), []),
    "palette": (lambda x: torch.arange(256).float()[x.flip(1).long()], []),
    "cond": (
        lambda x: torch.cond(x[0, 0, 0, 0] > 3, lambda y: y.flip(1), lambda y: y + y, (x,)).float(),
        [],
    ),
}
"""What is done to a frame, and the layers it becomes where they are worth a look."""


def segment(model: nn.Module, x: Tensor, target: Any, dynamic_shapes: Any = None) -> Any:
    made = lower(capture(model.eval(), (x,), dynamic_shapes=dynamic_shapes))
    plan = partition(made.captured.graph_module, target)
    assert [s.kind for s in plan.segments] == ["tensorrt"], plan.refusals
    return convert(plan.segments[0].graph_module, target, made.captured.ranges, made.recipes)


def assert_agrees(made: ConvertedSegment, model: nn.Module, x: Tensor) -> None:
    want = model(x)
    have = reference.evaluate(made.network, made.constants, {"x": x})
    for a, b in zip(have, want if isinstance(want, tuple) else (want,), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def assert_casts_at_borders(made: ConvertedSegment) -> None:
    """UINT8 is cast from inputs and to outputs, to and from what TensorRT casts it to and from."""
    network = made.network
    types = {t.name: t.dtype for t in (*network.inputs, *network.tensors.values())}
    for layer in network.layers:
        read, answered = (
            {types.get(n) for n in names} for names in (layer.operand_names(), layer.outputs)
        )
        if "UINT8" in read | answered:
            assert layer.kind == "cast"
            assert (read | answered) <= {"UINT8", "FLOAT", "HALF"}
            assert "UINT8" in read or set(layer.outputs) <= set(network.outputs)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    "varying", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["static", "dynamic"]
)
def test_a_chain_is_cast_once(name: str, varying: bool) -> None:
    function, kinds = CHAINS[name]
    model = Function(function)
    sizes = ({0: Dim("n", min=1, max=4), 1: Dim("h", min=4, max=9)},) if varying else None
    if varying and name == "cond":
        with pytest.raises(ConversionError, match="open sizes of a uint8 tensor"):
            segment(model, FRAME, RTX, sizes)
        return
    made = segment(model, FRAME, RTX, sizes)
    assert_agrees(made, model, FRAME)
    assert_casts_at_borders(made)
    engine.build(made)
    if kinds:
        assert sorted(layer.kind for layer in made.network.layers) == sorted(kinds)


def test_a_uint8_that_is_moved_back_is_the_input() -> None:
    made = segment(Function(lambda x: (x.float().to(torch.uint8), x.sum())), FRAME, RTX)
    assert made.outputs[0] == Passed("input", "x")


class Camera(nn.Module):
    """Frames as a camera gives them, made ready for a network within it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(torch.rand(3, 1, 1)), nn.Buffer(torch.rand(3, 1, 1) + 1)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 2:-2].flip(-1).permute(0, 3, 1, 2)
        x = nn.functional.pad(x, (1, 1, 1, 1), value=114)
        ready: Tensor = self.stem((x / 255 - self.mean) / self.std)
        return ready


@pytest.mark.parametrize(
    "release", [pytest.param(r, marks=[pytest.mark.slow] * (r != "8.6")) for r in EVERY]
)
def test_a_model_that_begins_with_a_camera_is_one_engine(release: str) -> None:
    model, x = Camera(), torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    target, sizes = EVERY[release], ({0: Dim("n", min=1, max=4)},)
    for dynamic_shapes in (None, sizes):
        made = segment(model, x, target, dynamic_shapes)
        assert_agrees(made, model, x)
        assert [layer.kind for layer in made.network.layers].count("cast") == 1
        if release.startswith("rtx"):
            engine.build(made)
        else:
            emitted(double(release), made.network, bytes_of(made.constants))
