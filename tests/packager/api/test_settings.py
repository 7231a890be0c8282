# SPDX-License-Identifier: Apache-2.0
"""Settings by name: what cannot be is refused, in words that help."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

import trtpack
from trtpack.api.settings import settled
from trtpack.api.torch_tensorrt import NAMES, SettingWarning
from trtpack.errors import ConfigError
from trtpack.options import Options


@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        ({"optimisation_level": 3}, "no setting 'optimisation_level'", "mean optimization_level?"),
        ({"min_block_sise": 3}, "no setting 'min_block_sise'", "mean min_block_size?"),
        ({"colour": 3}, "no setting 'colour'", "fields of trtpack.Options"),
        ({"samples": "3"}, "samples is '3', wanted int", "correct samples"),
        ({"samples": True}, "samples is True, wanted int", "correct samples"),
        ({"strict": 1}, "strict is 1, wanted bool", "correct strict"),
        ({"dtype": "float8"}, "dtype is 'float8', wanted 'float32'", "correct dtype"),
        ({"optimization_level": 7}, "optimization_level is 7, wanted at most 5", "correct"),
        ({"max_latency_ms": 0}, "max_latency_ms is 0, wanted more than 0", "correct"),
        ({"max_latency_ms": math.nan}, "max_latency_ms is nan, wanted a finite", "correct"),
        ({"workspace_bytes": "4 cups"}, "bad size '4 cups'", "512M"),
        ({"pins": ["head"]}, "bad pin 'head'", "head"),
        ({"strict": True, "torch_ops": "aten.add"}, "strict wants every operator", "leave one"),
        (
            {"require_full_compilation": True, "torch_executed_ops": {torch.ops.aten.add}},
            "--require-full wants every operator on engines, but aten.add is to stay in PyTorch",
            "leave one",
        ),
        (
            {"torch_ops": "aten.add", "trt_ops": ["aten.add"]},
            "aten.add is named by --torch-op and by --trt-op",
            "leave one",
        ),
        (
            {"workspace_size": 5, "workspace_bytes": 6},
            "workspace_size and workspace_bytes contradict each other",
            "leave one",
        ),
        ({"locked": True, "cache": False}, "without the cache none are known", "--tactics"),
        ({"targets": ("cpu", "orin")}, "target is cpu, but the options say cpu, orin", "once"),
        ({"device": "cuda:1"}, "there is no device: a bundle is built for a target", "native"),
        ({"enabled_precisions": {torch.int8}}, "int8, which needs scales", "calibrate="),
        ({"enabled_precisions": "f7"}, "there is no precision f7", "torch.float16"),
        ({"use_explicit_typing": False}, "networks are typed here", 'precision="mixed"'),
        ({"dryrun": None}, "dry_run is None, wanted bool", "correct dry_run"),
        ({"truncate_double": "yes"}, "truncate_double is 'yes', wanted True or False", "correct"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], problem: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settled(given, target="cpu")
    assert problem in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_setting_is_given_once() -> None:
    with pytest.raises(ConfigError, match="samples is given twice"):
        settled({"samples": 2}, {"samples": 2}, target="cpu")
    with pytest.raises(ConfigError, match="inputs are given beside"):
        settled({"inputs": "1x3"}, target="cpu", inputs=(trtpack.Input((1,)),))
    with pytest.raises(ConfigError, match="no target is given"):
        settled(None)
    not_made: Any = Options
    with pytest.raises(ConfigError, match=r"options are <class .*, wanted trtpack\.Options or"):
        settled(not_made, target="cpu")


def test_several_of_theirs_that_go_together() -> None:
    refittable = {"immutable_weights": False, "make_refittable": True}
    stripped = settled({**refittable, "strip_engine_weights": True}, target="cpu")
    assert stripped == Options(("cpu",), engine_weights="stripped")
    idle = {"autocast_low_precision_type": torch.float16, "autocast_excluded_nodes": {"head"}}
    assert settled({**idle, "enable_autocast": False}, target="cpu") == Options(("cpu",))
    (pin,) = settled({"autocast_excluded_nodes": "head.*"}, target="cpu").pins
    assert str(pin) == "head.*=fp32"


def test_settings_change_options_that_are_given() -> None:
    base = Options(samples=2, seed=3)
    assert settled(base, {"samples": 4}, target="cpu") == Options(("cpu",), samples=4, seed=3)


def test_the_warning_names_the_users_line() -> None:
    with pytest.warns(SettingWarning, match='write precision="mixed"') as caught:
        trtpack.build(
            torch.nn.ReLU(),
            torch.ones(1),
            target="orin",
            dry_run=True,
            enabled_precisions={torch.half},
        )
    (warning,) = (w for w in caught if issubclass(w.category, SettingWarning))
    assert warning.filename == __file__


def test_no_name_of_theirs_is_unknown() -> None:
    """Whatever Torch-TensorRT has is taken, needed no more, or refused with a reason."""
    refused = []
    for name in NAMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SettingWarning)
            try:
                settled({name: True}, target="cpu")
            except ConfigError as error:
                refused.append((error.message, error.hint))
    assert refused
    assert not [message for message, _ in refused if "there is no setting" in message]
    assert all(hint for _, hint in refused)
