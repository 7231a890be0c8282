# SPDX-License-Identifier: Apache-2.0
"""Models with recurrent layers and torch.cond: captured, converted, evaluated, built, and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trtpack_runtime
from tests.packager.converters import engine
from trtpack import aten_encoding
from trtpack.branches import COND
from trtpack.capture import Captured, capture
from trtpack.convert import ROUNDED
from trtpack.converters.symbols import Symbols
from trtpack.errors import CaptureError
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.partition_checks import check_places
from trtpack.pipeline import build
from trtpack.planning import Planned, plan
from trtpack.target import find_target
from trtpack_runtime import aten, reference

BATCH = torch.export.Dim("batch", min=2, max=6)


class Choosing(nn.Module):
    """Branches that read weights, a value made before, and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Conv1d(3, 3, 1)
        self.register_buffer("shift", torch.arange(5.0))

    def forward(self, x: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        before = x * 2

        def then(x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x) + before, x.sin().reshape(-1)

        def otherwise(x: Tensor) -> tuple[Tensor, Tensor]:
            ones = torch.ones(x.shape[0], 1, 1)
            return self.second(x) - self.shift + ones, (x + 1).reshape(x.shape[0] * 15)

        one, other = torch.cond(choice.sum() > 0, then, otherwise, (x,))
        return one * 2, other


class Nested(nn.Module):
    """A conditional within another."""

    def forward(self, x: Tensor, choice: Tensor) -> Tensor:
        def then(x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 3, (x,))

        return torch.cond(choice.sum() > 0, then, lambda x: x - 5, (x,))


@torch.library.custom_op("trtpack_tests::halve", mutates_args=())
def halve(x: Tensor) -> Tensor:
    return x / 2


@halve.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Halving(nn.Module):
    """A branch with an operator that has no converter."""

    def forward(self, x: Tensor, choice: Tensor) -> Tensor:
        y = x * 2
        y = torch.cond(choice.sum() > 0, lambda y: halve(y), lambda y: y + 1, (y,))
        return y + 3


class Speaking(nn.Module):
    """A recurrent layer of each kind, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.rnn = nn.RNN(5, 3, batch_first=True, nonlinearity="relu", bias=False)
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        every, (hidden, _) = self.lstm(x)
        every, _ = self.gru(every)
        every, last = self.rnn(every)
        return every, self.cell(last[0])[0] + hidden.sum((0, 2))[:, None]


def planned(captured: Captured, target: str) -> Planned:
    return plan(lower(captured), find_target(target), Options((target,), min_block_size=1))


def captured(model: nn.Module, *, dynamic: bool = False) -> Captured:
    torch.manual_seed(1)
    shapes = {"x": {0: BATCH}, "choice": None} if dynamic else None
    return capture(model.eval(), (torch.randn(3, 3, 5), torch.ones(2)), {}, shapes)


def agree(made: Planned, model: nn.Module, batches: tuple[int, ...]) -> None:
    """The one TensorRT segment answers what the model does, whichever branch is taken."""
    (segment,) = made.plan.segments
    done = made.converted[segment.name]
    for batch in batches:
        for sign in (1, -1):
            x, choice = torch.randn(batch, 3, 5), torch.ones(2) * sign
            given = {"x": x, "choice": choice}
            answers = reference.evaluate(done.network, done.constants, given)
            found = dict(zip(segment.outputs, answers, strict=True))
            wanted = model(x, choice)
            wanted = [wanted] if isinstance(wanted, Tensor) else wanted
            for name, want in zip(made.plan.outputs, wanted, strict=True):
                torch.testing.assert_close(found[name], want, rtol=1e-5, atol=1e-5)


class Both(nn.Module):
    """A loop and a conditional in float32 beside something in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.narrow = nn.RNN(5, 2, batch_first=True), nn.Linear(5, 4).half()

    def forward(self, x: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = torch.cond(choice.sum() > 0, lambda x: (x * 2,), lambda x: (x - 1,), (x,))
        return self.rnn(y)[0], self.narrow(x.half())


def test_loops_and_conditionals_in_float32_are_not_beside_float16_before_tensorrt_10() -> None:
    whole = planned(captured(Both()), "orin@jetpack-6.2")
    assert [segment.kind for segment in whole.plan.segments] == ["tensorrt"]
    made = planned(captured(Both()), "orin@jetpack-6.0")
    reasons = {refusal.op: refusal.reason for refusal in made.plan.refusals}
    assert reasons == {"cond": ROUNDED, "aten.rnn_tanh.input": ROUNDED}
    kinds = {la.kind for done in made.converted.values() for la in done.network.every_layer()}
    assert "matrix_multiply" in kinds
    assert kinds.isdisjoint({"scan", "branch"})


def test_loops_and_conditionals_of_one_type_stay_before_tensorrt_10() -> None:
    for model in (Speaking(), Speaking().half()):
        dtype = next(model.parameters()).dtype
        made = plan(
            lower(capture(model.eval(), (torch.randn(2, 3, 4, dtype=dtype),))),
            find_target("orin@jetpack-6.0"),
            Options(("orin@jetpack-6.0",), min_block_size=1),
        )
        assert made.plan.refusals == ()


@pytest.mark.parametrize(
    "target",
    [
        "rtx-4090",
        pytest.param("orin@jetpack-6.2", marks=pytest.mark.slow),
        pytest.param("orin@jetpack-6.0", marks=pytest.mark.slow),
    ],
)
def test_a_conditional_is_one_layer_with_two_regions(target: str) -> None:
    model = Choosing()
    made = planned(captured(model, dynamic=True), target)
    assert made.plan.refusals == ()
    agree(made, model, (2, 5))
    ((_, done),) = made.converted.items()
    (branch,) = (layer for layer in done.network.layers if layer.kind == "branch")
    assert set(branch.regions) == {"then", "otherwise"}
    assert {layer.name.partition(".")[0] for layer in done.network.every_layer()} >= {"cond"}
    if target == "rtx-4090":
        engine.build(done)


@pytest.mark.slow
def test_conditionals_nest() -> None:
    model = Nested()
    made = planned(captured(model), "rtx-4090")
    assert made.plan.refusals == ()
    agree(made, model, (3,))
    engine.build(*made.converted.values())


@pytest.mark.slow
def test_tensorrt_rtx_nests_no_conditionals_of_open_sizes() -> None:
    graph = captured(Nested(), dynamic=True)
    refused, *_ = planned(graph, "rtx-4090").plan.refusals
    assert refused.reason.startswith("TensorRT-RTX builds no conditional within another")
    made = planned(graph, "orin@jetpack-6.2")
    assert made.plan.refusals == ()
    agree(made, Nested(), (2, 6))


def test_a_branch_with_an_impossible_operator_keeps_the_conditional_in_pytorch() -> None:
    made = planned(captured(Halving()), "rtx-4090")
    (refused,) = made.plan.refusals
    assert refused.reason == "its branch has trtpack_tests.halve.default: no converter"
    assert [segment.kind for segment in made.plan.segments] == ["tensorrt", "torch", "tensorrt"]


@pytest.mark.parametrize("model", [Choosing(), pytest.param(Nested(), marks=pytest.mark.slow)])
def test_a_stored_graph_has_its_conditionals(model: nn.Module) -> None:
    graph_module = captured(model, dynamic=True).graph_module
    lowered = [n for n in graph_module.graph.nodes if n.target is COND]
    assert len(lowered) == 1
    stored = aten_encoding.encode(graph_module, ["a", "b"], Symbols.of(graph_module).dim)
    run = aten.decode(stored, dict(graph_module.named_buffers()))
    assert aten_encoding.needs_newer_torch(stored) == []
    assert "cond" not in aten_encoding.operators(stored)
    for sign in (1, -1):
        x, choice = torch.randn(4, 3, 5), torch.ones(2) * sign
        wanted = model(x, choice)
        for have, want in zip(
            run(x, choice), [wanted] if isinstance(wanted, Tensor) else wanted, strict=True
        ):
            torch.testing.assert_close(have, want)


def test_a_graph_within_a_stored_graph_is_checked_for_old_pytorch() -> None:
    inner = {"inputs": [], "outputs": [], "nodes": []}
    newer = {"name": "n", "op": "aten.not_there.default", "args": [], "kwargs": {}}
    cond = {
        "name": "c",
        "op": "cond",
        "args": [{"value": "p"}, {"graph": inner}, {"graph": {**inner, "nodes": [newer]}}],
        "kwargs": {},
    }
    graph: dict[str, Any] = {"nodes": [cond]}
    assert aten_encoding.operators(graph) == {"aten.not_there.default": 1}
    assert len(aten_encoding.needs_newer_torch(graph)) == 1


@pytest.mark.slow
def test_sizes_of_a_conditional_vary_though_it_ran_before() -> None:
    model = Choosing().eval()
    model(torch.randn(3, 3, 5), torch.ones(2))
    assert captured(model, dynamic=True).ranges


def test_an_operand_that_is_answered_is_told_by_torch() -> None:
    class Answering(nn.Module):
        def forward(self, x: Tensor, choice: Tensor) -> Tensor:
            return torch.cond(choice.sum() > 0, lambda x: x, lambda x: x + 1, (x,))

    with pytest.raises(CaptureError, match=r"cannot export the model .*aliasing"):
        captured(Answering())


@pytest.mark.slow
def test_an_operator_kept_in_pytorch_keeps_conditionals_that_have_it() -> None:
    options = Options(("rtx-4090",), torch_ops=("aten.sin",))
    lowered = lower(captured(Choosing()))
    check_places([lowered], options)
    made = plan(lowered, find_target("rtx-4090"), options)
    kept = {refused.op: refused.reason for refused in made.plan.refusals}
    assert kept["cond"] == "kept in PyTorch by --torch-op"


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.slow
def test_recurrent_layers_become_one_engine() -> None:
    torch.manual_seed(2)
    shapes = {"x": {0: BATCH, 1: torch.export.Dim("length", min=2, max=9)}}
    model = Speaking().eval()
    graph = capture(model, (torch.randn(3, 4, 4),), {}, shapes)
    made = planned(graph, "rtx-4090")
    assert made.plan.refusals == ()
    ((_, done),) = made.converted.items()
    kinds = [layer.kind for layer in done.network.layers]
    assert kinds.count("scan") == 6
    assert len(kinds) < 100
    for batch, length in ((2, 9), (5, 2)):
        x = torch.randn(batch, length, 4)
        answers = reference.evaluate(done.network, done.constants, [x])
        for have, want in zip(answers, model(x), strict=True):
            torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)
    engine.build(done)


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    ("model", "inputs", "targets", "engine_kind"),
    [
        (Speaking(), (torch.randn(3, 6, 4),), ("rtx-4090",), None),
        (Choosing(), (torch.randn(3, 3, 5), torch.ones(2)), ("rtx-4090",), None),
        (Choosing(), (torch.randn(3, 3, 5), torch.ones(2)), ("cpu",), "reference"),
    ],
    ids=["recurrent", "conditional", "conditional in PyTorch"],
)
def test_a_bundle_answers_as_the_model_does(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    targets: tuple[str, ...],
    engine_kind: Any,
    tmp_path: Path,
) -> None:
    path = tmp_path / "bundle.tar"
    build((model.eval(), inputs), Options(targets, path, engine=engine_kind))
    loaded = trtpack_runtime.load(path)
    with torch.no_grad():
        for have, want in zip(loaded(*inputs), model(*inputs), strict=True):
            torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5)
