# SPDX-License-Identifier: Apache-2.0
"""Several methods of one model in one bundle: one set of weights, one state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import trtpack
import trtpack_runtime
from trtpack.cli.explain import explain
from trtpack.errors import ConfigError, SourceError
from trtpack.inputs import parse_profile
from trtpack.sources import load_source, load_sources
from trtpack.sources.methods import Method
from trtpack_runtime import network, program
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.network import Network

pytestmark = pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")

ROOM = 8


class Notes(nn.Module):
    """Keeps what it was told, row by row; three methods read or write that."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(ROOM, 4), persistent=False)

    def tell(self, rows: Tensor) -> Tensor:
        new = self.fc(rows).relu()
        self.kept[: rows.shape[0]] = new
        return new

    def add(self, row: Tensor, at: Tensor) -> Tensor:
        self.kept.index_copy_(0, at, self.fc(row).relu())
        return self.kept.sum(0)

    def ask(self, question: Tensor) -> Tensor:
        return self.kept @ question

    number = 3


def notes() -> tuple[Notes, dict[str, Method]]:
    torch.manual_seed(0)
    rows = torch.export.Dim("rows", min=2, max=6)
    return Notes(), {
        "tell": Method(torch.randn(4, 4), dynamic_shapes={"rows": {0: rows}}),
        "add": Method(
            (trtpack.Input((1, 4)), trtpack.Input((1,), dtype="int64", high=ROOM, low=0))
        ),
        "ask": Method(kwargs={"question": torch.randn(4)}),
    }


def used(model: Any, reset: Callable[[], object]) -> list[Tensor]:
    """What its methods answer one after the other."""
    generator = torch.Generator().manual_seed(1)
    rows, row, question = (torch.randn(n, 4, generator=generator) for n in (3, 1, 1))
    with torch.no_grad():
        reset()
        first = model.tell(rows)
        asked = model.ask(question=question[0])
        added = model.add(row, torch.tensor([6]))
        return [first, asked, added, model.ask(question=question[0])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> trtpack.api.Bundle:
    path = tmp_path_factory.mktemp("methods") / "notes.tar"
    options = trtpack.Options(
        targets=("orin", "rtx-4090"),
        output=path,
        defer=True,
        samples=2,
        min_block_size=1,
        torch_ops=("aten.relu.default",),
        profiles=(parse_profile("tell.rows=2x4"),),
    )
    return trtpack.build(*notes(), options=options)


def networks_of(opened: Bundle, method: str, variant: str) -> list[Network]:
    member = opened.manifest.variants[variant].programs[method]
    segments = program.from_json(json.loads(bytes(opened.member(member)))).segments
    return [network.from_bytes(opened.member(s.network)) for s in segments if s.network]


@pytest.mark.parametrize("target", ["orin", "rtx-4090"])
def test_what_one_method_changes_the_others_read(bundle: Any, target: str) -> None:
    model, _ = notes()
    loaded = trtpack_runtime.load(bundle.path, target=target)
    wanted = used(model, model.kept.zero_)
    assert wanted[1].abs().sum() > 0
    for _ in range(2):
        for have, want in zip(used(loaded, loaded.reset), wanted, strict=True):
            torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    assert not any(name == "forward" for name in loaded.methods)


def test_methods_share_weights_and_each_is_proved(bundle: Any) -> None:
    opened = open_bundle(bundle.path)
    assert set(opened.manifest.methods) == {"tell", "add", "ask"}
    assert [slot.name for slot in opened.manifest.state] == ["kept"]
    follows = {n: [g.follows for g in m.golden] for n, m in opened.manifest.methods.items()}
    assert follows == {"tell": [()] * 2, "add": [("tell",)] * 2, "ask": [("add",)] * 2}
    assert sorted(n for n in opened.tensors("weights/0.safetensors") if "fc.weight" in n) == [
        "fc.weight"
    ]
    networks = [networks_of(opened, name, "rtx-4090") for name in ("tell", "add")]
    assert [[len(n.profiles) for n in found] for found in networks] == [[2, 2], [0, 0]]
    report = bundle.report
    assert list(report.methods) == ["tell", "add", "ask"]
    for target in report.targets:
        proved = {a.sample: a.failure for a in target.agreement}
        samples = [f"{m}-{i}" for m in report.methods for i in range(2)]
        assert proved == dict.fromkeys([*samples, *(f"{name} in turn" for name in samples)])
    assert {a.output for a in report.methods["ask"].targets[0].agreement} == {
        "output",
        "state kept",
    }
    text = report.to_text()
    for name in report.methods:
        assert f"Method {name}\n" in text
        assert f"  outputs = model.{name}(" in text
    assert report.to_json()["methods"]["ask"]["inputs"][0]["name"] == "question"


def test_a_factory_of_methods_takes_inputs_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    model = f"{__name__}:notes"
    words = [model, "-t", "orin", "--input", "tell.rows=2/3/5x4"]
    result = CliRunner().invoke(explain, words, catch_exceptions=False)
    assert "Method tell\n  input   rows    float32  2/3/5x4" in result.output
    assert "tell_0  TensorRT" in result.output
    with pytest.raises(ConfigError, match="the methods are tell, add, ask") as caught:
        CliRunner().invoke(explain, [*words[:4], "rows=2x4"], catch_exceptions=False)
    assert "tell.rows" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"precision": "auto"}, "--precision auto is for a model of one method"),
        ({"metric": "math:floor", "max_drop": "1%"}, "--metric is for a model of one method"),
        ({"budgets": ("nothing:cosine>=0.9",)}, "of an output that the model does not have"),
    ],
)
def test_what_only_one_method_can_be_asked_for_is_refused(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        trtpack.build(*notes(), target="cpu", output=tmp_path / "b.tar", **settings)
    assert not list(tmp_path.iterdir())


def test_what_is_no_method_is_refused_with_the_nearest() -> None:
    model, methods = notes()
    with pytest.raises(SourceError, match="Notes, which has no method 'asks'") as caught:
        load_sources((model, {"asks": methods["ask"]}))
    assert caught.value.hint == "did you mean ask?"
    with pytest.raises(SourceError, match="no method 'number'"):
        load_sources((model, {"number": methods["ask"]}))
    with pytest.raises(SourceError, match="returned a tuple for 'add' beside methods"):
        load_sources((model, {"ask": methods["ask"], "add": (torch.ones(1),)}))
    mixed = Method((trtpack.Input((1, 4)), torch.tensor([5])))
    with pytest.raises(ConfigError, match="method add is given tensors beside inputs"):
        load_sources((model, {"add": mixed}))
    with pytest.raises(SourceError, match="has the methods tell, add, ask"):
        load_source((model, methods))


def test_a_method_is_the_same_module_called_otherwise() -> None:
    model, methods = notes()
    tell, _, ask = load_sources((model, methods))
    assert ask.module is not model
    assert type(ask.module).__name__ == "Notes"
    tell.run(((torch.ones(2, 4),), {}))
    assert torch.equal(ask.module.get_buffer("kept"), model.kept)
    assert model.kept.abs().sum() > 0
    assert not next(iter(ask.module.children())).training
