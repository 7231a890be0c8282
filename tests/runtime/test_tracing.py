# SPDX-License-Identifier: Apache-2.0
"""A loaded bundle inside ``torch.export``, ``torch.jit.trace`` and ``torch.compile``."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runtime import chains, handmade
from trtpack_runtime import load, tracing
from trtpack_runtime.errors import BundleError, ConfigError, InputMismatchError
from trtpack_runtime.module import BundleModule

X, SCALE = torch.linspace(-2, 8, 12).reshape(3, 4), torch.tensor([0.5])
TWICE = torch.cat([X, X])
ROWS = torch.export.Dim("rows", min=2, max=8)
Traced = Callable[..., Any]


class Around(nn.Module):
    """A model with a bundle in it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.inner(x + 0, scale=scale)["logits"] * 2  # type: ignore[no-any-return]  # a module's answer is Any


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()
    tracing._loaded.clear()


@pytest.fixture(params=["orin", pytest.param("cpu", marks=pytest.mark.slow)])
def module(request: pytest.FixtureRequest, tmp_path: Path) -> BundleModule:
    """One with state: a segment of PyTorch, and a network in front of one."""
    return load(handmade.write(tmp_path / "b.tar"), target=request.param)


@pytest.fixture
def chain(tmp_path: Path) -> BundleModule:
    return load(chains.write(tmp_path / "c.tar", 2, 3))


def exported(module: nn.Module, strict: bool = False) -> torch.export.ExportedProgram:
    shapes = {"x": {0: ROWS}, "scale": None}
    return torch.export.export(module, (X, SCALE), dynamic_shapes=shapes, strict=strict)


def want(x: torch.Tensor) -> torch.Tensor:
    answer: torch.Tensor = handmade.Classifier()(x, scale=SCALE)["logits"]
    return answer.detach()


def operators(program: torch.export.ExportedProgram) -> list[str]:
    nodes = program.graph_module.graph.find_nodes(
        op="call_function", target=torch.ops.trtpack.call.default
    )
    return [node.args[5] for node in nodes]


def test_an_exported_bundle_answers_for_other_sizes_and_keeps_state(module: BundleModule) -> None:
    program = exported(module)
    assert operators(program) == ["forward"]
    assert module.states["calls"] == 0
    traced = program.module()
    for x in (X, TWICE):
        answer = traced(x, SCALE)
        torch.testing.assert_close(answer["logits"], want(x))
        assert (answer["best"][1], answer["batch"]) == (None, len(x))
    assert traced.get_buffer("calls") == 2


@pytest.mark.slow
def test_its_state_is_an_explicit_part_of_the_exported_graph(module: BundleModule) -> None:
    program = exported(module).run_decompositions({})
    assert list(program.graph_signature.buffers_to_mutate.values()) == ["calls"]


def test_a_bundle_within_a_model_is_exported_with_it(module: BundleModule) -> None:
    traced = exported(Around(module)).module()
    torch.testing.assert_close(traced(TWICE, SCALE), 2 * want(TWICE))
    assert traced.get_buffer("inner.calls") == 1


def test_engines_alone_are_exported(chain: BundleModule) -> None:
    engine = chain.engine("forward_1")
    program = torch.export.export(engine, (X,), dynamic_shapes={"inputs": ({0: ROWS},)})
    assert operators(program) == ["segment forward_1"]
    torch.testing.assert_close(program.module()(TWICE)[0], 2 * TWICE)


def test_a_segment_of_pytorch_alone_has_shapes_too(module: BundleModule) -> None:
    engine = module.engine([s.name for s in module.segments()][-1])
    given = (X, SCALE, torch.tensor(3))
    program = torch.export.export(engine, given, dynamic_shapes={"inputs": ({0: ROWS}, None, None)})
    logits, best, calls = program.module()(TWICE.clamp(0, 6), SCALE, torch.tensor(5))
    torch.testing.assert_close(logits, want(TWICE))
    assert (best.shape, int(calls)) == ((6,), 6)


def test_a_traced_bundle_answers_for_other_sizes_and_keeps_state(module: BundleModule) -> None:
    traced = torch.jit.trace(Around(module), (X, SCALE), check_trace=False)
    torch.testing.assert_close(traced(TWICE, SCALE), 2 * want(TWICE))
    assert dict(traced.named_buffers())["inner.calls"] == module.states["calls"] == 2


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_compiled_model_takes_it_whole(module: BundleModule, backend: str) -> None:
    compiled = torch.compile(Around(module), backend=backend, fullgraph=True, dynamic=True)
    for x in (X, TWICE):
        torch.testing.assert_close(compiled(x, SCALE), 2 * want(x))
    assert module.states["calls"] == 2
    leaf = X.clone().requires_grad_()
    assert not compiled(leaf, SCALE).requires_grad


@pytest.mark.slow
def test_inductor_compiles_around_it(module: BundleModule) -> None:
    compiled = torch.compile(Around(module), fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(X, SCALE), 2 * want(X))
    assert module.states["calls"] == 2


def test_flat_calls_are_traced_too(chain: BundleModule) -> None:
    compiled = torch.compile(
        lambda *x: chain.run("forward", x)[0] * 2, backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(X, X), 4 * chains.doubled(X, times=3))
    with pytest.raises(ConfigError, match="cannot write into given outputs"):
        torch.jit.trace(lambda x: chain.run("forward", [x, x], out=[X])[0], (X,))


def test_eager_calls_do_not_go_through_the_operator(
    chain: BundleModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("the operator was called")

    monkeypatch.setattr(tracing, "_found", refuse)
    chain(X, X)
    chain.engine("forward_0")(X, X)


def test_what_a_method_does_not_take_is_told_while_tracing(chain: BundleModule) -> None:
    with pytest.raises(InputMismatchError, match="input x1: wanted float32, got float64"):
        torch.export.export(chain, (X, X.double()))
    with pytest.raises(InputMismatchError, match="input x0: wanted 2 dimensions"):
        torch.export.export(chain, (X[0], X))


def test_sizes_are_compared_when_the_program_runs(chain: BundleModule) -> None:
    rows = torch.export.Dim("rows", min=2, max=100)
    shapes = {"x0": {0: rows}, "x1": {0: rows}}
    traced = torch.export.export(chain, (X, X), dynamic_shapes=shapes).module()
    big = torch.ones(9, 4)
    with pytest.raises(InputMismatchError, match="input x0: dimension 0 is 9, wanted 1 to 8"):
        traced(big, big)


def test_an_answer_is_in_no_inputs_memory(tmp_path: Path) -> None:
    x = torch.ones(2)
    first, second = tracing._own([x, x], [x])
    assert len({x.data_ptr(), first.data_ptr(), second.data_ptr()}) == 3
    same = torch.ones(2)
    first, second = tracing._own([same, same], [x])
    assert first is same
    assert second is not same


@pytest.mark.slow
def test_a_program_finds_its_bundle_again_and_says_where_it_is_missing(tmp_path: Path) -> None:
    path = chains.write(tmp_path / "c.tar", 2, 4)  # no other test has it loaded
    module = load(path)
    program = torch.export.export(module, (X, X))
    traced = program.module()
    del module, program
    gc.collect()
    torch.testing.assert_close(traced(X, X), chains.doubled(X, X, times=4))  # loaded again
    tracing._loaded.clear()
    gc.collect()
    moved = path.rename(tmp_path / "moved.tar")
    with pytest.raises(BundleError, match=r"calls an engine of .*c\.tar, which cannot be opened"):
        traced(X, X)
    chains.write(tmp_path / "other.tar", 2, 2).rename(path)
    with pytest.raises(BundleError, match=r"of another .* than the one that is there") as caught:
        traced(X, X)
    assert caught.value.wants != caught.value.has
    kept = load(moved)
    torch.testing.assert_close(traced(X, X), kept(X, X))


def test_a_program_finds_any_instance_that_is_left(chain: BundleModule) -> None:
    shapes = {"x0": {0: ROWS}, "x1": {0: ROWS}}
    traced = torch.export.export(chain, (X, X), dynamic_shapes=shapes).module()
    key = chain.bundle.digest, chain.variant
    twin = chain.twin()
    chain.to("meta")
    torch.testing.assert_close(traced(TWICE, TWICE), chains.doubled(TWICE, TWICE, times=3))
    assert {chain, twin} <= set(tracing._attached[key])
    assert not tracing._loaded


LOADS = """
import sys, torch, trtpack_runtime.tracing
x, scale = torch.ones(5, 4), torch.ones(1)
print(float(torch.export.load(sys.argv[1]).module()(x, scale).sum()))
print(float(torch.jit.load(sys.argv[2])(x, scale).sum()))
"""


@pytest.mark.slow
def test_saved_programs_run_in_another_process(module: BundleModule, tmp_path: Path) -> None:
    files = [tmp_path / "program.pt2", tmp_path / "program.ts"]
    torch.export.save(exported(Around(module)), files[0])
    torch.jit.trace(Around(module), (X, SCALE), check_trace=False).save(files[1])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADS, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    x, scale = torch.ones(5, 4), torch.ones(1)
    answer = 2 * float(handmade.Classifier()(x, scale=scale)["logits"].sum())
    assert [float(line) for line in done.stdout.split()] == pytest.approx([answer] * 2)
