# SPDX-License-Identifier: Apache-2.0
"""The settings that tuning chooses among, as a user gives them, and turns of candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trtpack.engine_options import check_engine_options, inductor_config
from trtpack.errors import CompileError, ConfigError
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.target import find_target
from trtpack.tuning.measuring import Candidate, Turns
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.loading import load
from trtpack_runtime.manifest_variants import variant_json


def test_settings_of_inductor_by_its_names() -> None:
    assert inductor_config(Options()) == {}
    assert inductor_config(Options(threads=2, freezing=True, max_autotune=True)) == {
        "cpp.threads": 2,
        "cpp.dynamic_threads": False,
        "freezing": True,
        "max_autotune": True,
    }


@pytest.mark.parametrize(
    ("target", "changes", "flag"),
    [
        ("orin", {"freezing": True}, "--freezing is for AOTInductor"),
        ("orin", {"max_autotune": True}, "--max-autotune is for AOTInductor"),
        ("orin", {"threads": 2}, "--threads is for AOTInductor"),
        ("cpu", {"cuda_graphs": True}, "--cuda-graphs is for TensorRT"),
    ],
)
def test_a_setting_that_no_target_heeds_is_refused(
    target: str, changes: dict[str, Any], flag: str
) -> None:
    options = replace(Options(targets=(target,)), **changes)
    with pytest.raises(ConfigError, match=flag):
        check_engine_options(options, [find_target(target)])


def test_a_bundle_says_that_its_calls_are_cuda_graphs(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    options = Options(targets=("orin",), output=tmp_path / "b.tar", defer=True, cuda_graphs=True)
    build((model, (torch.zeros(1, 4),)), options)
    variant = open_bundle(tmp_path / "b.tar").manifest.variants["orin"]
    assert variant.cuda_graphs
    assert variant_json(variant)["cuda_graphs"] is True
    assert variant_json(replace(variant, cuda_graphs=False)).keys() == {
        "target",
        "programs",
        "engines",
    }
    asked: dict[bool | None, str] = {}
    for said in (None, False):
        module = load(
            tmp_path / "b.tar", target="orin", device="cpu", build=False, cuda_graphs=said
        )
        asked[said] = module._call_options.cuda_graphs
    assert asked == {None: "on", False: "off"}


class Timed(Candidate):
    """Notes whose turn it is; the n-th is n times as slow as the first."""

    def __init__(self, number: int, turns: list[int]) -> None:
        self.number, self.turns = number, turns
        self.ms, self.per_second = [], []

    def turn(self, seconds: float = 0.0) -> float:
        self.turns.append(self.number)
        self.ms.append(float(self.number))
        self.per_second.append(100.0 / self.number)
        return self.ms[-1]


def test_the_order_of_turns_changes_with_each_round() -> None:
    order: list[int] = []
    turns = Turns([Timed(number, order) for number in (1, 2, 3)])
    assert [turns.round() for _ in range(3)] == [(1.0, 2.0, 3.0)] * 3
    assert order == [1, 2, 3, 2, 3, 1, 3, 1, 2]
    assert Turns([Timed(2, order)], "per_second").round() == (20.0,)


@pytest.mark.slow
def test_a_candidate_that_does_not_load_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"it does not run: .*missing\.tar"):
        Candidate(tmp_path / "missing.tar", "cpu")
