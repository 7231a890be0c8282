# SPDX-License-Identifier: Apache-2.0
"""Real architectures in INT8: every product is quantized, nothing is left stranded, and an engine
can be built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import trtpack
from tests.packager.calibration.test_build import network_of
from tests.zoo import MODELS
from trtpack.livening import liven
from trtpack.report import BuildReport
from trtpack_runtime.network import Layer, Network

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


def built(name: str, folder: Path, **options: Any) -> BuildReport:
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
        precision="int8",
        calibrate=f"{folder / 'data.py'}:loader",
        observer="minmax",
        **options,
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


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "vit_b_16", "BERT_pytorch"])
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


def _attention(report: BuildReport) -> int:
    """Two products for each operator of attention."""
    return 2 * sum(c for op, c in report.operators.items() if "attention" in op)
