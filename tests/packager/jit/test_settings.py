# SPDX-License-Identifier: Apache-2.0
"""The options of ``torch.compile`` are those of a build, as far as they mean something there."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from trtpack.errors import ConfigError
from trtpack.jit.backend import backend
from trtpack.jit.making import workshop
from trtpack.jit.settings import OFFERED, options_of
from trtpack.options import Options, Pin


def test_what_is_offered_is_an_option_of_a_build() -> None:
    assert {field.name for field in dataclasses.fields(Options)} >= OFFERED


def test_settings_are_read_as_a_build_reads_them() -> None:
    made = options_of({"precision": "mixed", "pins": ["head.*=fp32"], "min_block_size": 3})
    assert made.targets == ("auto",)
    assert (made.precision, made.pins, made.min_block_size) == (
        "mixed",
        (Pin("head.*", "fp32"),),
        3,
    )
    assert options_of({"target": "cpu", "torch_executed_ops": ["aten.add"]}).torch_ops
    for known in ("aten.relu", "aten.relu.default", "aten.add.Tensor"):
        assert options_of({"torch_ops": known}).torch_ops == (known,)
    assert options_of(Options(min_block_size=3)) == options_of({"min_block_size": 3})


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"precison": "fp16"}, "'precison'", "did you mean precision"),
        ({"output": "b.tar"}, "output is for bundles", "trtpack.build"),
        ({"torch_ops": ["aten.reluu"]}, "torch_ops names aten.reluu", "did you mean aten.relu?"),
        ({"trt_ops": ["mine.nothing"]}, "knows no such operator", ""),
        ({"inputs": ["1x3"]}, "inputs is for bundles", "mark_dynamic"),
        ({"precision": "int8"}, "precision int8 is chosen with data", "quantized model"),
        ({"strict": True, "torch_ops": ["aten.add"]}, "strict wants every operator", "leave one"),
        (5, "the options are 5, wanted trtpack.Options or a mapping", "write options="),
        ({"target": ["cpu", "orin"]}, "one target, not for 2", "this machine"),
    ],
)
def test_bad_options_are_refused(given: Any, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        options_of(given)
    assert hint in refused.value.hint


def test_another_machine_is_refused_except_where_nothing_is_built_for_it() -> None:
    with pytest.raises(ConfigError, match="for this machine, not for orin"):
        workshop(options_of({"target": "orin"}), on_gpu=False)
    assert workshop(options_of({"target": "orin", "engine": "reference"}), on_gpu=False)


def test_the_error_that_dynamo_shows_has_the_hint_and_a_mode_is_refused() -> None:
    graph = torch.fx.symbolic_trace(torch.nn.ReLU())
    with pytest.raises(ConfigError, match="'precison'; did you mean precision"):
        backend(graph, [torch.ones(2)], options={"precison": "fp16"})
    with pytest.raises(ConfigError, match="mode 'max-autotune' is one of the backend inductor"):
        backend(graph, [torch.ones(2)], mode="max-autotune")
