# SPDX-License-Identifier: Apache-2.0
"""Weights of linear layers with a scale for each block of a row, through to engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from safetensors.torch import save_file
from torch import Tensor, nn

import trtpack
import trtpack_runtime
from tests.packager.calibration.models import answer, quantized
from tests.packager.calibration.test_build import network_of
from trtpack.options import Budget, PrecisionName
from trtpack.report import BuildReport
from trtpack.report.text import render
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.recipes import replay
from trtpack_tools.update_weights import update_weights

COLUMNS, BLOCK = 256, 64


def wide() -> tuple[nn.Sequential, tuple[Tensor]]:
    """A linear layer whose rows have a large weight in one block each, and an input."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(COLUMNS, 96)).eval().requires_grad_(False)
    module[0].weight[:, 70] *= 40
    return module, (torch.randn(4, COLUMNS),)


def transformer() -> tuple[nn.Module, tuple[Tensor]]:
    """One block of attention and a feed-forward network, and an input."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    return layer.eval(), (torch.randn(2, 16, 128),)


def in_groups(weight: Tensor, block: int = BLOCK) -> Tensor:
    """What PyTorch's own operators for groups make of a weight in INT8."""
    scales = weight.reshape(len(weight), -1, block).abs().amax(2) / 127
    scales = scales.half().float()
    zeros = torch.zeros_like(scales)
    groups = torch.ops.quantized_decomposed
    numbers = groups.quantize_per_channel_group(weight, scales, zeros, -128, 127, torch.int8, block)
    made: Tensor = groups.dequantize_per_channel_group(
        numbers, scales, zeros, -128, 127, torch.int8, block, torch.float32
    )
    return made


def replayed(module: nn.Module, recipes: Mapping[str, dict[str, Any]], name: str) -> Tensor:
    """What a recipe makes of the module's weights."""
    (recipe,) = (recipe for owner, recipe in recipes.items() if owner.endswith(name))
    return replay(recipe, {k: v.detach() for k, v in module.state_dict().items()})


def test_blocks_are_rounded_as_pytorch_rounds_groups() -> None:
    module, args = wide()
    lowered = quantized(module, args, block=BLOCK, stored=True, samples=())
    layer = module[0]
    wanted = nn.functional.linear(args[0], in_groups(layer.weight), layer.bias)
    torch.testing.assert_close(answer(lowered, args), wanted)
    rows = quantized(module, args, stored=True, samples=())
    lost = [float((answer(one, args) - module(*args)).norm()) for one in (lowered, rows)]
    assert lost[0] < lost[1] / 2, "a large weight takes its own block's precision alone"


def test_a_block_of_a_whole_row_is_its_channel() -> None:
    module, args = wide()
    rows, blocks = (
        quantized(module, args, block=block, stored=True, samples=()) for block in (None, COLUMNS)
    )
    assert torch.equal(answer(rows, args), answer(blocks, args))
    assert rows.recipes.keys() == blocks.recipes.keys()


def test_new_weights_bring_the_scales_of_their_blocks() -> None:
    module, args = wide()
    lowered = quantized(module, args, block=BLOCK, stored=True, samples=())
    module[0].weight[:, :BLOCK] *= 3
    scales = replayed(module, lowered.recipes, "weight_scale")
    largest = module[0].weight.reshape(96, -1, BLOCK).abs().amax(2)
    assert scales.shape == (96, COLUMNS // BLOCK)
    torch.testing.assert_close(scales, largest / 127, rtol=1e-3, atol=0)
    numbers = replayed(module, lowered.recipes, "weight_int8")
    assert numbers.dtype == torch.int8
    meant = numbers * scales.repeat_interleave(BLOCK, 1)
    assert torch.equal(meant, in_groups(module[0].weight))


def built(
    model: tuple[nn.Module, tuple[Tensor, ...]],
    path: Path,
    precision: PrecisionName = "int8-weights",
    block: int | None = None,
    target: str = "rtx-4090",
    budgets: tuple[Budget, ...] = (),
) -> BuildReport:
    options = trtpack.Options(
        targets=(target,),
        output=path,
        precision=precision,
        weight_block=block,
        budgets=budgets,
        cache=False,
    )
    return trtpack.build(model, options=options).report


@pytest.mark.slow
@pytest.mark.parametrize(("make", "count"), [(wide, 1), (transformer, 4)])
def test_tensorrt_rtx_builds_weights_in_blocks(
    make: Callable[[], tuple[nn.Module, tuple[Tensor]]], count: int, tmp_path: Path
) -> None:
    report = built(make(), tmp_path / "few.tar", block=BLOCK)
    weights = f"{count} weight{'s' if count > 1 else ''} in blocks of {BLOCK}"
    assert weights in render(report)
    assert report.to_json()["precision"]["quantization"]["block"] == BLOCK
    network = network_of(tmp_path / "few.tar")
    stored = [c for c in network.constants.values() if c.dtype == "INT8"]
    assert len(stored) == count
    assert {c.shape[1] for c in stored} == {BLOCK}
    (engine,) = report.targets[0].engines
    assert engine.kind == "tensorrt-rtx"


@pytest.mark.slow
def test_blocks_are_stored_in_eight_bits(tmp_path: Path) -> None:
    large = nn.Sequential(nn.Linear(1024, 1024, bias=False)).eval(), (torch.randn(4, 1024),)
    engines, bundles = [], []
    ways: tuple[tuple[PrecisionName, int | None], ...]
    ways = (("fp16", None), ("int8-weights", BLOCK), ("int8-weights", None))
    for precision, block in ways:
        path = tmp_path / f"{precision}-{block}.tar"
        report = built(large, path, precision, block)
        engines.append(report.targets[0].engines[0].nbytes)
        bundles.append(path.stat().st_size)
    print(f"\nengines {engines}, bundles {bundles}")
    assert engines[2] < engines[1] < 0.7 * engines[0]
    saved = 1024 * 1024 - 2 * 4 * 1024 * 1024 // BLOCK  # a byte a weight, but for the scales
    assert bundles[0] - bundles[1] > saved


@pytest.mark.slow
@pytest.mark.parametrize("block", [32, 64])
def test_int4_has_other_blocks_too(block: int, tmp_path: Path) -> None:
    report = built(transformer(), tmp_path / "few.tar", "int4", block=block)
    assert f"4 weights in blocks of {block}" in render(report)
    assert [engine.kind for engine in report.targets[0].engines] == ["tensorrt-rtx"]


@pytest.mark.slow
def test_a_search_tries_int4_in_the_blocks_that_were_asked_for(tmp_path: Path) -> None:
    narrow = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    path, budget = tmp_path / "few.tar", (Budget("cosine", 0.9),)
    model = (narrow, (torch.randn(4, 64),))
    assert "quantization" not in built(model, path, "auto", budgets=budget).precision
    report = built(model, path, "auto", BLOCK, budgets=budget)
    assert "2 weights in blocks of 64" in render(report), "rows of 64 are no block of 128"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::trtpack_runtime.starting.DegradedWarning")
@pytest.mark.parametrize("target", ["orin", "orin@jetpack-6.0"])
def test_a_bundle_takes_new_weights_and_rounds_them_by_blocks(target: str, tmp_path: Path) -> None:
    model, args = transformer()
    path, new = tmp_path / "few.tar", tmp_path / "new.safetensors"
    built((model, args), path, block=BLOCK, target=target)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for value in state.values():
        if value.dim() == 2:
            value.mul_(0.9).add_(0.01)
            value[:, :7] *= 5
    save_file(state, new)
    assert update_weights(open_bundle(path), new, path).derived > 0
    model.load_state_dict(state)
    model.requires_grad_(False)
    got, wanted = trtpack_runtime.load(path)(*args), model(*args)
    assert float((got - wanted).norm() / wanted.norm()) < 1e-2
    built((model, args), tmp_path / "again.tar", block=BLOCK, target=target)
    assert torch.equal(got, trtpack_runtime.load(tmp_path / "again.tar")(*args))
