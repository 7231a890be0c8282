# SPDX-License-Identifier: Apache-2.0
"""What tuning may change, for which engines, and how it is said on the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trtpack.errors import ConfigError
from trtpack.inputs import parse_inputs
from trtpack.options import Budget, Options
from trtpack.target import find_target
from trtpack.tuning import check_tuning
from trtpack.tuning.space import applied, flags, space

CPU = Options(targets=("cpu",))


def names(options: Options, cpus: int = 8) -> dict[str, tuple[object, ...]]:
    target = find_target(options.targets[0])
    return {setting.name: setting.others for setting in space(options, target, cpus)}


def test_a_cpu_has_those_of_aotinductor() -> None:
    assert names(CPU) == {"freezing": (True,), "max_autotune": (True,), "threads": (4, 2, 1)}
    assert "threads" not in names(CPU, cpus=1)


def test_what_the_user_has_set_stays() -> None:
    assert names(replace(CPU, threads=3, freezing=True)).keys() == {"max_autotune"}


def test_tensorrt_has_its_own() -> None:
    found = names(Options(targets=("orin",)))
    assert {"optimization_level", "workspace_bytes", "min_block_size"} <= found.keys()
    assert "threads" not in found


def test_a_profile_of_the_optimum_is_tried_where_sizes_are_open() -> None:
    inputs = parse_inputs(["x=1/4/8x3x32x32", "mask=1x7"])
    options = Options(targets=("orin",), inputs=inputs)
    assert names(options)["profiles"] == ("x=4x3x32x32",)
    (made,) = applied(options, {"profiles": "x=4x3x32x32"}).profiles
    assert [str(one) for one in made] == ["x=4x3x32x32"]
    assert flags({"profiles": "x=4x3;m=4"}) == "--profile 'x=4x3;m=4'"
    assert "profiles" not in names(replace(options, inputs=parse_inputs(["1/4/8x3"])))


def test_precisions_are_tried_where_there_is_a_budget() -> None:
    budget = replace(CPU, budgets=(Budget("cosine", 0.999),))
    assert names(budget)["precision"] == ("mixed", "mixed-bf16")
    orin = Options(targets=("orin",), budgets=budget.budgets)
    assert "int8" not in names(orin)["precision"]
    data = replace(orin, calibrate="data.py:loader")
    assert "int8" in names(data)["precision"]
    assert "fp8" not in names(data)["precision"]  # an Orin has none
    assert "fp8" in names(replace(data, targets=("rtx-4090",)))["precision"]


def test_what_only_another_precision_needs_is_left_out() -> None:
    data = replace(CPU, calibrate="data.py:loader")
    assert applied(data, {"precision": "mixed"}).calibrate is None
    assert applied(data, {"precision": "int8"}).calibrate == "data.py:loader"
    blocks = replace(CPU, weight_block=64)
    assert applied(blocks, {"precision": "mixed"}).weight_block is None
    assert applied(blocks, {"precision": "int8-weights"}).weight_block == 64


def test_settings_as_flags() -> None:
    said = {"freezing": True, "max_autotune": True, "threads": 2, "workspace_bytes": 4}
    assert flags(said) == "--freezing --max-autotune --threads 2 --workspace 4"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tune": True, "dry_run": True}, "--dry-run"),
        ({"tune": True, "defer": True}, "on this machine, which --defer does not"),
        ({"tune": True, "locked": True}, "--locked"),
        ({"tune": True, "on": "ssh://orin", "dry_run": True}, "--dry-run"),
        ({"tune": True, "on": "ssh://orin", "defer": True}, "on ssh://orin, which --defer does"),
        ({"tune": True, "on": "ssh://orin", "locked": True}, "--locked"),
        ({"tune": True, "targets": ("cpu", "orin")}, "for one target"),
        ({"trials": 3}, "--trials is for --tune"),
        ({"budget_minutes": 3.0}, "--budget-minutes is for --tune"),
        ({"optimize": "memory"}, "--optimize memory is for --tune"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_tuning(replace(CPU, **changes))
