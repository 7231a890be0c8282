# SPDX-License-Identifier: Apache-2.0
"""Loaded bundles on a real GPU: inputs from elsewhere, streams, graphs of whole programs, state,
threads, tracing. PyTorch runs the segments, so that no TensorRT is needed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import chains, handmade
from trtpack_runtime import load
from trtpack_runtime.errors import InputMismatchError
from trtpack_runtime.module import BundleModule

pytestmark = pytest.mark.gpu
GPU = "cuda"
SHAPE = (2, 4)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture
def graphed(tmp_path: Path) -> BundleModule:
    return load(chains.write(tmp_path / "b.tar", 2, 3), device=GPU, cuda_graphs="on")


@pytest.fixture
def stateful(tmp_path: Path) -> BundleModule:
    path = chains.write(tmp_path / "s.tar", 1, 2, state=True, methods=("forward", "decode"))
    return load(path, device=GPU, cuda_graphs="on")


def some(inputs: int = 2, rows: int = 2) -> list[torch.Tensor]:
    """Random numbers of the host: PyTorch makes none on a GPU while another thread captures."""
    return [torch.randn(rows, 4).to(GPU) for _ in range(inputs)]


def replayed(module: BundleModule, method: str = "forward") -> int:
    """How many sets of shapes have a graph."""
    graphs = module._loaded.calls[method].graphs
    assert graphs is not None
    assert graphs.refused is None
    return sum(seen.graph is not None for seen in graphs._seen.values())


def test_a_graph_answers_what_the_program_does_wherever_inputs_are(graphed: BundleModule) -> None:
    kept = some()
    for number in range(12):
        given = kept if number % 3 else [torch.randn(4, 2, device=GPU).t() for _ in range(2)]
        torch.testing.assert_close(graphed(*given), chains.doubled(*given, times=3))
        kept[0] += 1
    assert replayed(graphed) == 1


def test_graphs_of_several_shapes_and_streams(graphed: BundleModule) -> None:
    streams = [torch.cuda.Stream() for _ in range(3)]
    answers = []
    for number in range(60):
        with torch.cuda.stream(streams[number % 3]):
            given = some(rows=1 + number % 4)
            answers.append((graphed(*given), chains.doubled(*given, times=3)))
    torch.cuda.synchronize()
    for got, want in answers:
        torch.testing.assert_close(got, want)
    assert replayed(graphed) == 4


def test_given_outputs_in_a_graph(graphed: BundleModule) -> None:
    given, out = some(), torch.empty(SHAPE, device=GPU)
    for _ in range(6):
        assert graphed.run("forward", given, out=[out])[0] is out
        torch.testing.assert_close(out, chains.doubled(*given, times=3))
        given[1] *= 0.5
    other = torch.empty_like(out)
    kept = out.clone()
    for _ in range(3):
        graphed.run("forward", given, out=[other])
        torch.testing.assert_close(other, chains.doubled(*given, times=3))
    assert torch.equal(out, kept)


def test_state_within_graphs_of_two_methods(stateful: BundleModule) -> None:
    want = torch.zeros(SHAPE, device=GPU)
    for number in range(12):
        (x,) = some(1)
        want = chains.doubled(x, want, times=2)
        got = stateful.method(("forward", "decode")[number % 2])(x)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(stateful.states["total"], want)
    assert replayed(stateful) == replayed(stateful, "decode") == 1
    stateful.reset()
    (x,) = some(1)
    torch.testing.assert_close(stateful(x), chains.doubled(x, times=2))


def test_threads_share_a_module(graphed: BundleModule) -> None:
    def calls(seed: int) -> bool:
        with torch.cuda.stream(torch.cuda.Stream()):
            right = []
            for number in range(50):
                given = some(rows=1 + (seed + number) % 4)
                want = chains.doubled(*given, times=3)
                right.append(torch.allclose(graphed(*given), want))
            torch.cuda.current_stream().synchronize()
        return all(right)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(calls, range(4)))


def test_inputs_of_the_host_are_moved_where_the_load_says_so(tmp_path: Path) -> None:
    path = chains.write(tmp_path / "b.tar")
    x = torch.randn(4, 2).t()
    with pytest.raises(InputMismatchError, match="it is on cpu, the bundle on cuda:0"):
        load(path, device=GPU)(x)
    module = load(path, device=GPU, inputs="convert")
    for given in (x, x.pin_memory(), x.half(), x.cuda()):
        torch.testing.assert_close(module(given).cpu(), 2 * given.float().cpu())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_another_gpu_than_the_current_one(tmp_path: Path) -> None:
    path = chains.write(tmp_path / "b.tar", 1, 2)
    module = load(path, device="cuda:1", cuda_graphs="on")
    for _ in range(4):
        x = torch.randn(SHAPE, device="cuda:1")
        torch.testing.assert_close(module(x), 4 * x)
    with pytest.raises(InputMismatchError, match="it is on cuda:0, the bundle on cuda:1"):
        module(torch.randn(SHAPE, device="cuda:0"))


def test_exported_and_compiled(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar"), target="orin", device=GPU)
    given = (torch.randn(3, 4, device=GPU), torch.ones(1, device=GPU))
    want = module(*given)["logits"]
    program = torch.export.export(module, given).module()
    torch.testing.assert_close(program(*given)["logits"], want)
    compiled: Any = torch.compile(lambda *x: module(*x)["logits"] * 2, fullgraph=True)
    torch.testing.assert_close(compiled(*given), 2 * want)
    assert module.states["calls"] == 3
