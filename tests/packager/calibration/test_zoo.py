# SPDX-License-Identifier: Apache-2.0
"""Real architectures in few bits: every product is quantized, nothing is left stranded, every value
is rounded as PyTorch's fake quantizers round it, and an engine can be built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

import trtpack
from tests.packager.calibration.test_build import network_of
from tests.zoo import MODELS
from trtpack.calibration.request import Quantization, Sample
from trtpack.capture import capture
from trtpack.convert import ConvertedSegment, convert
from trtpack.livening import liven
from trtpack.lowering import lower
from trtpack.options import Budget, PrecisionName
from trtpack.partition import partition
from trtpack.precision.plan import WEIGHTS_ONLY
from trtpack.precision.running import named_inputs
from trtpack.report import BuildReport
from trtpack.target import find_target
from trtpack_runtime.network import Layer, Network
from trtpack_runtime.reference import evaluate

pytestmark = pytest.mark.slow
PRODUCTS = {"convolution_nd", "deconvolution_nd", "matrix_multiply"}
FACTORS = ("input", "kernel", "input0", "input1")
THROUGH = {"shuffle", "slice", "concatenation", "pooling_nd", "cast", "gather"}


def made_of(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """A model and its inputs: of the zoo, or torchvision's ViT."""
    if name == "vit_b_16":
        from trtpack.sources.torchvision_ops import import_torchvision

        torch.manual_seed(0)
        module = import_torchvision().models.get_model(name, weights=None)
        return module, (torch.randn(2, 3, 224, 224),)
    module, args, _ = MODELS[name]()
    return module, args


def built(name: str, folder: Path, precision: PrecisionName = "int8") -> BuildReport:
    """A livened model of the zoo, quantized from random inputs of its own kind."""
    module, args = made_of(name)
    module.eval().requires_grad_(False)
    liven(module, args, seed=0)
    (folder / "data.py").write_text(
        "import torch\n"
        "kept = torch.load('calibration.pt', weights_only=True)\n"
        "def loader():\n    return kept\n"
    )
    torch.save([args], folder / "calibration.pt")
    chosen = trtpack.Options(
        targets=("rtx-4090",),
        output=folder / "q.tar",
        precision=precision,
        calibrate=None if precision in WEIGHTS_ONLY else f"{folder / 'data.py'}:loader",
        observer=None if precision in WEIGHTS_ONLY else "minmax",
        # random weights lose more than trained ones, whose accuracy test_trained.py holds
        budgets=() if precision == "int8" else (Budget("cosine", 0.9),),
    )
    return trtpack.build((module, args), options=chosen).report


def makers(network: Network) -> dict[str, Layer]:
    """Which layer answers each tensor."""
    return {name: layer for layer in network.layers for name in layer.outputs}


def behind(name: str, made: dict[str, Layer]) -> str:
    """The kind of what makes a value, behind layers that only move it."""
    layer = made.get(name)
    while layer is not None and layer.kind in THROUGH:
        layer = made.get(next(iter(layer.operand_names())))
    return "input" if layer is None else layer.kind


def stranded(network: Network) -> Iterator[str]:
    """Dequantized values that nothing reads in few bits."""
    readers: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.operand_names():
            readers.setdefault(name, []).append(layer)
    useful = PRODUCTS | THROUGH | {"elementwise", "quantize", "reduce"}
    for layer in network.layers:
        if layer.kind == "dequantize":
            for name in layer.outputs:
                if not any(reader.kind in useful for reader in readers.get(name, [])):
                    yield name


NAMES = ["resnet50", "mobilenet_v3_large", "vit_b_16", "BERT_pytorch"]


@pytest.mark.parametrize("name", NAMES)
def test_every_product_reads_few_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = built(name, tmp_path)
    (engine,) = report.targets[0].engines
    assert engine.kind == "tensorrt-rtx"
    network = network_of(tmp_path / "q.tar")
    made, found = makers(network), Counter[str]()
    for layer in network.layers:
        if layer.kind in PRODUCTS:
            names = [layer.operands[name] for name in FACTORS if name in layer.operands]
            found["+".join(behind(str(name), made) for name in names)] += 1
    print(f"\n{name}: {dict(found)}, {sum(layer.kind == 'dequantize' for layer in network.layers)}")
    assert found["dequantize+dequantize"] > 0
    rest = sum(found.values()) - found["dequantize+dequantize"]
    assert rest <= _attention(report), "only attention's own products stay"
    assert not list(stranded(network))
    (agreement,) = report.targets[0].agreement[:1]
    assert agreement.cosine > 0.98


@pytest.mark.parametrize(
    ("name", "precision"),
    [*product(NAMES, ("fp8", "int4")), ("BERT_pytorch", "int8-weights")],
)
def test_engines_of_other_types(
    name: str, precision: PrecisionName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = built(name, tmp_path, precision)
    (engine,) = report.targets[0].engines
    found = report.precision["quantization"]
    told = {what: found[what] for what in ("products", "values", "weights")}
    print(f"\n{name} in {precision}: {told}, an engine of {engine.nbytes / 1e6:.1f} MB")
    assert engine.kind == "tensorrt-rtx"
    assert found["weights"] > 0


def quantized(name: str) -> tuple[fx.GraphModule, ConvertedSegment, Sample]:
    """A model in INT8: as a graph of PyTorch, as a network, and an input."""
    module, args = made_of(name)
    module.eval().requires_grad_(False)
    liven(module, args, seed=0)
    captured, target = capture(module, args), find_target("rtx-4090")
    sample = named_inputs(captured, args)
    lowered = lower(captured, quantization=Quantization("INT8", "minmax", lambda: [sample]))
    (segment,) = partition(captured.graph_module, target).segments
    made = convert(segment.graph_module, target, captured.ranges, lowered.recipes)
    return captured.graph_module, made, sample


@pytest.mark.parametrize("name", NAMES)
def test_the_evaluator_rounds_as_pytorchs_fake_quantizers(name: str) -> None:
    """Value by value: a last bit of a product decides which way a tie goes, and all behind it."""
    _, converted, sample = quantized(name)
    network, values = converted.network, dict[str, torch.Tensor]()
    given = {tensor.name: sample[tensor.name] for tensor in network.inputs}
    evaluate(network, converted.constants, given, keep=values)
    values |= given
    for called, constant in network.constants.items():
        values[called] = converted.constants[constant.data].reshape(constant.shape)
    made, worst, count = makers(network), 0.0, 0
    for layer in network.layers:
        if layer.kind != "dequantize":
            continue
        before = made[str(layer.operands["input"])]
        x, scale = values[str(before.operands["input"])], values[str(layer.operands["scale"])]
        got = values[layer.outputs[0]]
        worst, count = max(worst, distance(got, fake_quantized(x, scale, layer))), count + 1
    print(f"\n{name}: {count} values, rel. L2 {worst:.2g} at most")
    assert count > 30
    assert worst <= 1e-3


def fake_quantized(x: torch.Tensor, scale: torch.Tensor, layer: Layer) -> torch.Tensor:
    """What PyTorch's own operators make of a value."""
    if scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(x, float(scale), 0, -128, 127)
    zeros, axis = torch.zeros(len(scale), dtype=torch.int32), layer.attributes["axis"]
    return torch.fake_quantize_per_channel_affine(x, scale, zeros, axis, -128, 127)


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """The relative L2 error."""
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def _attention(report: BuildReport) -> int:
    """Two products for each operator of attention."""
    return 2 * sum(c for op, c in report.operators.items() if "attention" in op)
