# SPDX-License-Identifier: Apache-2.0
"""Golden samples of a method begin with what the methods before it left, wherever they are run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import trtpack
import trtpack_runtime
from tests.packager.test_decoder_cache import VOCABULARY, Decoder, by_index_copy
from tests.runtime.command import trtpack as command
from trtpack.capture import capture
from trtpack.errors import CompileError, ConfigError
from trtpack.golden import GoldenSample, record_golden
from trtpack.shared_state import share_state
from trtpack.sources import load_sources
from trtpack.sources.methods import Method
from trtpack_runtime import program
from trtpack_runtime.borders import noting
from trtpack_runtime.bundle import Bundle, Member, open_bundle
from trtpack_runtime.manifest import Border
from trtpack_runtime.module import BundleModule
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_runtime.smoke import golden_samples
from trtpack_tools.debugging import choose_segment, subject
from trtpack_tools.update_weights import update_weights

pytestmark = pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "build-several-methods.md"
OLDER = Path(__file__).parents[1] / "fixtures" / "bundles" / "1-methods.tar"
HOST = torch.device("cpu")


class Counter(nn.Module):
    """The model of docs/how-to/build-several-methods.md, asked for in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(4))

    def tell(self, rows: Tensor) -> Tensor:
        new = self.fc(rows)
        self.total += new.sum(0)
        return new

    def ask(self, scale: Tensor) -> Tensor:
        return self.total * scale

    def bound(self, scale: Tensor) -> Tensor:
        """In two segments, with a border between them that is made of state."""
        return (self.total * scale).relu() + scale


def counter(seed: int = 0) -> tuple[nn.Module, dict[str, Method]]:
    torch.manual_seed(seed)
    return Counter(), {
        "tell": Method(torch.randn(2, 4)),
        "ask": Method(torch.rand(1) + 1),
        "bound": Method(torch.rand(1) + 1),
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("chained") / "counter.tar"
    trtpack.build(*counter(), options=options(path, "aten.relu.default"))
    return open_bundle(path)


def options(path: Path, *in_pytorch: str) -> trtpack.Options:
    return trtpack.Options(
        targets=("orin",),
        output=path,
        defer=True,
        samples=2,
        min_block_size=1,
        torch_ops=in_pytorch,
        cache=False,
    )


def loaded(path: Path) -> BundleModule:
    return trtpack_runtime.load(path, target="orin", device="cpu")


def ignoring_state(bundle: Bundle, path: Path, *methods: str) -> Path:
    """The bundle with methods whose first segment gets the first value of what is state."""
    added = []
    for name in methods:
        member = bundle.manifest.variants["orin"].programs[name]
        made = program.from_json(json.loads(bytes(bundle.member(member))))
        initial = {s.name: s.initial for s in bundle.manifest.state}
        first = {s.input: f"first_{i}" for i, s in enumerate(made.state)}
        constants = {first[s.input]: initial[s.slot] for s in made.state}
        segments = tuple(
            replace(s, inputs={k: first.get(v, v) for k, v in s.inputs.items()})
            for s in made.segments
        )
        wrong = replace(made, segments=segments, constants={**made.constants, **constants})
        added.append(Member(member, json.dumps(program.to_json(wrong)).encode()))
    rewrite(bundle, path, manifest=bundle.manifest, add=added)
    return path


def test_samples_follow_the_methods_before_and_hold_no_zeros(bundle: Bundle) -> None:
    methods = bundle.manifest.methods
    assert "golden:follows" in bundle.manifest.requires
    assert {n: [g.follows for g in m.golden] for n, m in methods.items()} == {
        "tell": [(), ()],
        "ask": [("tell",), ("tell",)],
        "bound": [("tell",), ("tell",)],
    }
    told = golden_samples(bundle, methods["tell"], HOST)
    for sample in golden_samples(bundle, methods["ask"], HOST):
        assert torch.equal(sample.before["total"], told[0].states["total"])
        (answer,) = sample.outputs.values()
        torch.testing.assert_close(answer, told[0].states["total"] * sample.inputs[0])
        assert answer.abs().min() > 0


def test_the_pages_counter_is_asked_for_what_it_was_told(tmp_path: Path) -> None:
    code = re.search(r"```python\n(# counter\.py.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"__name__": "counter"}
    exec(code[1], names)  # it is this repository's own
    path = tmp_path / "counter.tar"
    trtpack.build(*names["make"](), options=options(path))
    answers = tmp_path / "answers.npz"
    words = ["--target", "orin", "--device", "cpu", "--no-bench", "--method", "ask"]
    ended = command("run", path, *words, "--output", answers)
    assert ended.code == 0, ended.err
    assert "smoke test: passed" in ended.out
    sample, *_ = golden_samples(open_bundle(path), open_bundle(path).manifest.methods["ask"], HOST)
    numpy.testing.assert_allclose(numpy.load(answers)["output"], sample.outputs["output"])
    assert sample.outputs["output"].abs().min() > 0
    assert "proof  2 golden samples, after tell" in command("inspect", path).out


def test_a_method_that_ignores_the_state_fails(bundle: Bundle, tmp_path: Path) -> None:
    assert loaded(bundle.path).smoke().passed
    wrong = ignoring_state(bundle, tmp_path / "wrong.tar", "ask")
    module = loaded(wrong)
    assert {c.output for c in module.smoke("ask").failed} == {"output"}
    assert module.smoke("tell").passed
    assert module.states["total"].abs().max() == 0
    words = ["--target", "orin", "--device", "cpu", "--no-bench"]
    ended = command("run", wrong, *words)
    assert ended.code == 7
    assert "worst is 'output' of ask-" in ended.err
    older = open_bundle(OLDER)
    assert loaded(ignoring_state(older, tmp_path / "older.tar", "ask")).smoke().passed, "in vain"


def test_a_reader_that_ignored_what_is_followed_would_judge_wrongly(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Which is why such a bundle requires it: an older runtime refuses the bundle instead."""
    methods = {
        name: replace(m, golden=tuple(replace(g, follows=()) for g in m.golden))
        for name, m in bundle.manifest.methods.items()
    }
    path = tmp_path / "unfollowed.tar"
    rewrite(bundle, path, manifest=replace(bundle.manifest, methods=methods))
    assert not loaded(path).smoke("ask").passed


def test_borders_are_of_the_same_state_on_host_and_device(bundle: Bundle, tmp_path: Path) -> None:
    module, method = loaded(bundle.path), bundle.manifest.methods["bound"]
    samples = golden_samples(bundle, method, HOST)
    for borders, sample in zip(method.borders, samples, strict=True):
        found: dict[str, Border] = {}
        module.reset(sample.before)
        with module.watching(noting(borders, found)), torch.no_grad():
            module.run("bound", sample.inputs)
        assert found == borders
        assert any(border.absmax > 0 for border in borders.values())
    report = loaded(ignoring_state(bundle, tmp_path / "wrong.tar", "bound")).smoke("bound")
    (departure,) = report.departures
    assert (departure.segment, departure.number) == ("bound_0", 1)


def test_the_host_refuses_a_build_that_ignores_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtpack import pipeline

    def spoiled(path: Path, *rest: Any) -> Path:
        return ignoring_state(open_bundle(written(path, *rest)), path, "ask")

    written = pipeline.write
    monkeypatch.setattr(pipeline, "write", spoiled)
    monkeypatch.setattr(pipeline, "record_turns", lambda *_: ())
    with pytest.raises(CompileError, match=r"output of ask-\d"):
        trtpack.build(*counter(), options=options(tmp_path / "counter.tar"))


def test_a_segment_is_debugged_with_the_state_of_its_sample(bundle: Bundle) -> None:
    made = subject(bundle, choose_segment(bundle, "orin", "ask_0"), HOST)
    (told, *_) = golden_samples(bundle, bundle.manifest.methods["tell"], HOST)
    assert any(torch.equal(value, told.states["total"]) for value in made.inputs.values())
    assert made.module.states["total"].abs().max() == 0


def test_samples_of_new_weights_follow_each_other_too(bundle: Bundle, tmp_path: Path) -> None:
    model, _ = counter(7)
    weights = tmp_path / "weights.safetensors"
    write_safetensors(weights, [StoredTensor(k, v) for k, v in model.state_dict().items()])
    updated = update_weights(bundle, weights, tmp_path / "new.tar")
    assert all(report.passed for report in updated.reports.values())
    methods = updated.bundle.manifest.methods
    told, *_ = golden_samples(updated.bundle, methods["tell"], HOST)
    for name in ("ask", "bound"):
        for sample in golden_samples(updated.bundle, methods[name], HOST):
            with torch.no_grad():
                model.get_buffer("total").zero_()
                model.tell(*told.inputs)  # type: ignore[operator]
                wanted = getattr(model, name)(*sample.inputs)
            torch.testing.assert_close(*sample.outputs.values(), wanted)
    assert methods["bound"].borders != bundle.manifest.methods["bound"].borders


def test_state_is_put_where_it_is_asked_for(bundle: Bundle) -> None:
    module = loaded(bundle.path)
    module.reset({"total": torch.full((4,), 3, dtype=torch.int64)})
    assert module.states["total"].dtype is torch.float32
    assert module.ask(torch.ones(1)).tolist() == [3.0] * 4
    module.reset()
    assert module.ask(torch.ones(1)).tolist() == [0.0] * 4
    with pytest.raises(ConfigError, match="no state 'sum', it has total"):
        module.reset({"sum": torch.ones(4)})


class Two(nn.Module):
    """Two buffers, and methods that use one or both."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("a", torch.zeros(3))
        self.register_buffer("b", torch.zeros(3))

    def add_a(self, x: Tensor) -> Tensor:
        self.inner.a += x  # type: ignore[operator]
        return x + 1

    def add_b(self, x: Tensor) -> Tensor:
        self.b += 2 * x
        return x + 2

    def both(self, x: Tensor) -> Tensor:
        self.b = self.b + self.inner.a
        return self.b * x

    def only_a(self, x: Tensor) -> Tensor:
        return self.inner.a * x

    def none(self, x: Tensor) -> Tensor:
        return x * 2


def recorded(*names: str) -> dict[str, tuple[GoldenSample, ...]]:
    """The samples of methods of ``Two`` in an order."""
    torch.manual_seed(1)
    sources = load_sources((Two(), {name: Method(torch.rand(3) + 1) for name in names}))
    graphs = share_state(
        [replace(capture(s.module, s.args, s.kwargs), method=s.method) for s in sources]
    )
    found = dict(zip(names, record_golden(sources, graphs, 2), strict=True))
    assert sources[0].module.get_buffer("b").abs().sum() == 0
    return found


def following(found: dict[str, tuple[GoldenSample, ...]]) -> dict[str, Sequence[str]]:
    return {name: sample.follows for name, (sample, _) in found.items()}


def test_only_what_matters_is_followed_in_the_declared_order() -> None:
    found = recorded("add_b", "none", "add_a", "both", "only_a")
    assert following(found) == {
        "add_b": (),
        "none": (),
        "add_a": (),
        "both": ("add_b", "add_a"),
        "only_a": ("add_a",),
    }
    a, b = found["add_a"][0].inputs[0], 2 * found["add_b"][0].inputs[0]
    for sample in found["both"]:
        torch.testing.assert_close(sample.outputs[0], (a + b) * sample.inputs[0])
        torch.testing.assert_close(sample.states["b"], a + b)
    assert torch.equal(found["only_a"][1].outputs[0], a * found["only_a"][1].inputs[0])


def test_the_same_methods_in_another_order_follow_another_way() -> None:
    found = recorded("only_a", "both", "add_a", "add_b")
    assert following(found) == {
        "only_a": (),
        "both": (),
        "add_a": (),
        "add_b": ("both",),
    }


def test_a_chain_of_three_goes_on_from_what_the_one_before_left() -> None:
    found = recorded("add_a", "both", "add_b")
    assert following(found) == {"add_a": (), "both": ("add_a",), "add_b": ("both",)}
    a = found["add_a"][0].inputs[0]
    assert torch.equal(found["both"][0].states["b"], a)
    for sample in found["add_b"]:
        torch.testing.assert_close(sample.states["b"], a + 2 * sample.inputs[0])


class Generator(Decoder):
    """The decoder, called with a whole prompt first."""

    def prefill(self, tokens: Tensor, position: Tensor) -> Tensor:
        return super().forward(tokens, position)

    def decode(self, tokens: Tensor, position: Tensor) -> Tensor:
        return super().forward(tokens, position)


@pytest.mark.slow
def test_a_decoders_step_is_proved_with_the_prompts_cache(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Generator(by_index_copy).eval()
    prompt, token = torch.randint(0, VOCABULARY, (2, 5)), torch.randint(0, VOCABULARY, (2, 1))
    methods = {
        "prefill": Method((prompt, torch.arange(5))),
        "decode": Method((token, torch.tensor([5]))),
    }
    path = tmp_path / "decoder.tar"
    made = trtpack.Options(targets=("orin",), output=path, defer=True, cache=False)
    trtpack.build(model, methods, options=made)
    bundle = open_bundle(path)
    (sample,) = golden_samples(bundle, bundle.manifest.methods["decode"], HOST)
    assert set(sample.before) == {"keys", "values"}
    with torch.no_grad():
        model(prompt, torch.arange(5))
        wanted = model(token, torch.tensor([5]))
    torch.testing.assert_close(*sample.outputs.values(), wanted)
    words = ["--target", "orin", "--device", "cpu", "--no-bench"]
    ended = command("run", path, *words)
    assert (ended.code, ended.out.count("smoke test: passed")) == (0, 2)
    wrong = ignoring_state(bundle, tmp_path / "wrong.tar", "decode")
    ended = command("run", wrong, *words)
    assert ended.code == 7
    assert re.search(r"(\d) of \1 outputs wrong, worst is .* of decode-0", ended.err)
