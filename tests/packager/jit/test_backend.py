# SPDX-License-Identifier: Apache-2.0
"""``torch.compile(backend="trtpack")`` answers what eager PyTorch answers, and changes the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trtpack
from trtpack.jit import calls
from trtpack_runtime.engines import _inductor_build
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.starting import DegradedWarning

from .models import Changing, compiled, same, twins


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", DegradedWarning)
        yield
    torch.compiler.reset()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each graph that was made, in their order."""
    lines: list[str] = []
    make = calls.make

    def counted(captured: Any, shop: Any, place: Any, samples: Any, label: str) -> object:
        lines.append(label)
        return make(captured, shop, place, samples, label)

    monkeypatch.setattr(calls, "make", counted)
    return lines


@pytest.mark.parametrize("target", ["cpu", pytest.param("rtx-4090", marks=pytest.mark.slow)])
def test_changes_of_inputs_and_shared_memory_are_as_in_eager_execution(target: str) -> None:
    model, eager = twins(Changing())
    module = compiled(model, target=target)
    for batch in (4, 3, 5):
        x, y = torch.randn(batch, 4), torch.zeros(batch)
        have, want = module(x, mine := y.clone()), eager(x, y)
        same(have, want)
        same((mine, model.calls), (y, eager.calls))
        have[0].zero_()
        assert not have[1].any()  # a view of it
        have[4].fill_(9.0)
        assert mine.tolist() == [1.0] + [9.0] * (batch - 1)


class Named(Tensor):
    """A tensor with a name of its own for what it is."""


@pytest.mark.parametrize("options", [{}, {"torch_ops": ["aten.relu"]}, {"min_block_size": 99}])
def test_a_subclass_of_tensors_is_answered_as_one(options: dict[str, Any]) -> None:
    def positive(x: Tensor) -> Tensor:
        return x.relu() + 1

    module, x = compiled(positive, **options), torch.randn(4).as_subclass(Named)
    for _ in range(3):
        answered = module(x)
        assert type(answered) is Named
        same(answered.as_subclass(Tensor), positive(x.as_subclass(Tensor)))


def test_a_subclass_of_tensors_is_answered_where_pytorch_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "make", _fails)
    module, x = compiled(torch.relu), torch.randn(4).as_subclass(Named)
    with pytest.warns(DegradedWarning, match="could not be compiled: not today"):
        assert type(module(x)) is Named
    same(module(x).as_subclass(Tensor), x.as_subclass(Tensor).relu())


def _fails(*_: object) -> object:
    raise EngineBuildError("not today")


def test_a_size_beyond_what_engines_take_makes_them_again(made: list[str]) -> None:
    model, eager = twins(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    module = compiled(model, dynamic=True)
    for batch in (5, 16, 3):
        same(module(x := torch.randn(batch, 4)), eager(x))
    assert len(made) == 1
    for batch in (40, 5, 80):
        same(module(x := torch.randn(batch, 4)), eager(x))
    assert len(made) == 2


def test_weights_that_changed_are_computed_with(made: list[str]) -> None:
    model, eager = twins(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    module, x = compiled(model), torch.randn(3, 4)
    same(module(x), eager(x))
    fresh = {name: value + 1 for name, value in eager.state_dict().items()}
    for one in (model, eager):
        one.load_state_dict(fresh)
    same(module(x), eager(x))
    model[0].weight = nn.Parameter(model[0].weight * 2)
    eager[0].weight = nn.Parameter(eager[0].weight * 2)
    same(module(x), eager(x))
    assert len(made) == 3


def test_layers_that_share_a_graph_keep_their_own_weights(made: list[str]) -> None:
    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x))

    layers = [Layer(4, 4) for _ in range(3)]
    wanted = [layer(torch.ones(2, 4)) for layer in layers]
    for layer in layers:
        layer.compile(backend="trtpack", options={"engine": "reference"})
    for _ in range(2):
        for layer, want in zip(layers, wanted, strict=True):
            same(layer(torch.ones(2, 4)), want)
    assert len(made) == 3


def test_weights_that_keep_changing_leave_the_graph_to_pytorch(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_CHANGES", 1)
    model, eager = twins(nn.Linear(4, 4))
    module, x = compiled(model), torch.randn(3, 4)
    for step in range(3):
        for one in (model, eager):
            one.weight.mul_(2)
        if step < 2:
            same(module(x), eager(x))
    with pytest.warns(DegradedWarning, match="its weights changed more than 1 times"):
        same(module(x), eager(x))
    same(module(x), eager(x))
    assert len(made) == 2


def test_what_gives_gradients_runs_in_pytorch() -> None:
    model, eager = twins(nn.Linear(4, 4))
    x = torch.randn(3, 4)
    with torch.enable_grad():
        with pytest.warns(DegradedWarning, match="has to give gradients") as told:
            compiled(model)(x).sum().backward()
        eager(x).sum().backward()
    assert len(told) == 1
    same(model.weight.grad, eager.weight.grad)


def test_a_failed_engine_leaves_its_segment_to_pytorch_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EngineBuildError("the compiler said no\n  its last line", hint="ask again")

    monkeypatch.setattr(_inductor_build, "build_in_child", fails)
    model, eager = twins(nn.Linear(4, 4))
    x = torch.randn(3, 4)
    module = compiled(model, engine="inductor", cache=False)
    with pytest.warns(DegradedWarning, match="the compiler said no$") as told:
        same(module(x), eager(x))
    same(module(x), eager(x))
    assert len(told) == 1
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="its last line; ask again"):
        compiled(model, engine="inductor", cache=False, strict=True)(x)


def test_a_graph_that_cannot_be_compiled_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(x: Tensor) -> Tensor:
        return x * 2

    monkeypatch.setattr(calls, "make", lambda *_: [][0])
    module, x = compiled(doubled), torch.ones(2, 4)
    with pytest.warns(DegradedWarning, match=r"graph from .*\.py:\d+ on runs .*: IndexError"):
        same(module(x), x * 2)
    same(module(x), x * 2)


def test_a_break_under_fullgraph_names_the_users_line() -> None:
    def breaks(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x + 1

    whole = torch.compile(
        breaks, backend="trtpack", fullgraph=True, options={"engine": "reference"}
    )
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"test_backend\.py"):
        whole(torch.ones(2))


@pytest.mark.gpu
def test_a_gpu_runs_engines_that_keep_up_with_sizes_and_weights(made: list[str]) -> None:
    pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    model, eager = twins(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).cuda())
    module = torch.compile(model, backend="trtpack", options={"strict": True})
    for batch in (4, 5, 40, 4):
        x = torch.randn(batch, 16, device="cuda")
        torch.testing.assert_close(module(x), eager(x), rtol=1e-3, atol=1e-3)
    assert len(made) == 3  # for 4, for sizes that vary, and for more than these
    for one in (model, eager):
        one[0].weight.mul_(2)
    torch.testing.assert_close(module(x), eager(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("precision", "block"), [("int8-weights", 16), ("int4", None)])
def test_weights_alone_are_rounded_as_in_a_bundle(precision: str, block: int | None) -> None:
    model, eager = twins(nn.Sequential(nn.ReLU(), nn.Linear(128, 8)))
    asked = {"target": "rtx-4090", "precision": precision, "weight_block": block}
    module, x = compiled(model, **asked), torch.randn(3, 128)
    for factor in (1.0, 3.0):  # scales follow the weights
        for one in (model, eager):
            one[1].weight.mul_(factor)
        aot = trtpack.compile(eager, (x,), engine="reference", **asked)
        same(module(x), aot(x))
        lost = (module(x) - eager(x)).norm() / eager(x).norm()
        assert 1e-3 < float(lost) < 0.3  # in float16 alone it is less


def test_a_graph_without_weights_to_round_is_no_error() -> None:
    def both(x: Tensor) -> Tensor:
        x = torch.sin(x)
        torch._dynamo.graph_break()
        return linear(x)

    linear = nn.Linear(16, 4).eval()
    module, x = compiled(both, target="rtx-4090", precision="int8-weights"), torch.randn(3, 16)
    torch.testing.assert_close(module(x), both(x), rtol=0.05, atol=0.05)
