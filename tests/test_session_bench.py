# SPDX-License-Identifier: Apache-2.0
"""What the session's part of the runtime benchmark makes of what it measured."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

import trtpack
from tests.acceptance.runtime import session
from tests.acceptance.runtime.row import Row, Settings
from tests.acceptance.runtime.soaking import Tally


def failed(row: Row) -> list[str]:
    return [bar.text for bar in row.bars if not bar.holds]


def test_every_way_answers_what_the_module_does() -> None:
    assert failed(session.agreed("state", {"numpy": 0.0, "GPU": 1e-7}, True)) == []
    assert failed(session.agreed("state", {"numpy": 0.0, "GPU": 1e-5}, False)) == [
        "state, GPU: as BundleModule",
        "state: golden samples",
    ]


def test_errors_are_relative_and_types_count() -> None:
    want = [torch.tensor([3.0, 4.0]), torch.tensor([1, 2])]
    same = [tensor.numpy() for tensor in want]
    assert session.error(same, want) == 0
    assert session.error([numpy.float32([3, 4.5]), same[1]], want) == pytest.approx(0.1)
    assert session.error([same[0], same[1].astype("i4")], want) == float("inf")


@pytest.mark.parametrize(("growth", "words"), [(0, []), (4, ["memory of the GPU stays"])])
def test_memory_stays(growth: int, words: list[str]) -> None:
    tally = Tally(1000)
    tally.readings = [(i, 1000, 1000 + growth * i // 100) for i in range(0, 1000, 10)]
    assert failed(session.flat("memory", tally)) == words


def test_a_process_without_torch_takes_less() -> None:
    light, heavy = {"s": 1.0, "host": 2e8, "gpu": 3e8}, {"s": 4.0, "host": 9e8, "gpu": 4e8}
    row = session.processes("a process", light, heavy)
    assert failed(row) == []
    assert [bar.found for bar in row.bars] == ["1 to 4 s", "200 to 900 MB", "300 to 400 MB"]
    assert len(failed(session.processes("a process", light, light))) == 3


@pytest.mark.parametrize("without", [True, False])
def test_the_script_of_a_process_is_python(without: bool) -> None:
    script = session.CHILD.format(without=without, inputs="x", bundle="b", device="cuda")
    compile(script, "child", "exec")


@pytest.mark.slow
def test_a_process_answers_and_tells_what_it_took(tmp_path: Path) -> None:
    """With PyTorch on the CPU; the other way needs a GPU."""
    options = trtpack.Options(targets=("cpu",), output=tmp_path / "b.tar", engine="reference")
    trtpack.build((session.Conv().eval(), (session._images(1),)), options=options)
    numpy.save(tmp_path / "x.npy", session._images(1).numpy())
    held = numpy.ones(10**8)
    told = session.child(tmp_path / "b.tar", tmp_path / "x.npy", without=False, device="cpu")
    assert set(told) == {"s", "host", "free"}
    assert 50e6 < told["host"] < held.nbytes, "its own memory, not that of who started it"


def test_models_run_and_their_inputs_are_within_their_ranges() -> None:
    for model in session.MODELS.values():
        module = model.module().eval()
        for i in range(5):
            x = model.given(i)
            assert torch.equal(x, model.given(i))
            module(x)
    assert {session._images(i).shape[0] for i in range(4)} == {1, 2, 3, 4}


def test_there_is_nothing_to_measure_without_a_gpu(tmp_path: Path) -> None:
    (row,) = session.rows(Settings("cpu", tmp_path))
    assert row.notes == ("A session needs a GPU.",)
