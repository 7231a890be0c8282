# SPDX-License-Identifier: Apache-2.0
"""Whole models in INT8: the evaluator answers what PyTorch does with the same fake quantizers.

Both compute in float64. In float32 they differ by a last bit here and there, one of which decides
which way some tie is rounded; behind it models with random weights differ by 1e-2, as either does
from itself where its input changes by a millionth.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from typing import Any

import pytest
import torch
from torch import fx

from tests.packager.calibration.test_zoo import NAMES, distance, quantized
from trtpack.precision.running import run_graph
from trtpack_runtime import reference
from trtpack_runtime.reference import evaluate
from trtpack_runtime.reference.pointwise import torch_dtype

pytestmark = pytest.mark.slow


def widened(name: str) -> torch.dtype:
    """The torch type of a TensorRT type, but for FLOAT."""
    return torch.float64 if name == "FLOAT" else torch_dtype(name)


def double(value: Any) -> Any:
    """Floating-point numbers as float64."""
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def in_double(module: fx.GraphModule) -> fx.GraphModule:
    """A graph that computes in float64 wherever it did in float32."""
    made = copy.deepcopy(module).double()
    for name, value in vars(made).items():
        setattr(made, name, double(value))

    def wide(argument: Any) -> Any:
        return torch.float64 if argument is torch.float32 else argument

    for node in made.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, wide)
        node.kwargs = fx.node.map_aggregate(node.kwargs, wide)
    return made


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Lets the evaluator, and what is made from numbers, be float64 where it would be float32."""
    for found in pkgutil.iter_modules(reference.__path__):
        module = importlib.import_module(f"{reference.__name__}.{found.name}")
        if hasattr(module, "torch_dtype"):
            monkeypatch.setattr(module, "torch_dtype", widened)
    monkeypatch.setattr(reference, "_bound", lambda declared, inputs: dict(inputs))
    monkeypatch.setattr(reference, "_hold_against", lambda *values: None)
    return monkeypatch


@pytest.mark.parametrize("name", NAMES)
def test_the_evaluator_answers_as_the_fake_quantized_model(
    name: str, in_float64: pytest.MonkeyPatch
) -> None:
    module, converted, sample = quantized(name)
    sample = {key: double(value) for key, value in sample.items()}
    constants = {key: double(value) for key, value in converted.constants.items()}
    given = {tensor.name: sample[tensor.name] for tensor in converted.network.inputs}
    wide, values = in_double(module), dict[str, torch.Tensor]()
    in_float64.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        got = evaluate(converted.network, constants, given)
        run_graph(wide, sample, lambda node, value: values.setdefault(node.name, value))
    finally:
        torch.set_default_dtype(before)
    (outputs,) = wide.graph.output_node().args
    assert isinstance(outputs, list | tuple)
    assert len(outputs) == len(got)
    for node, value in zip(outputs, got, strict=True):
        assert isinstance(node, fx.Node)
        assert value.dtype == values[node.name].dtype == torch.float64
        assert distance(value, values[node.name]) <= 1e-9
