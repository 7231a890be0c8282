# SPDX-License-Identifier: Apache-2.0
"""A model trained here keeps its accuracy in few bits, as other libraries quantize it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.ao.quantization as ao
from torch import nn

from tests.packager.quantization.fake_quantizers import prepared
from tests.packager.quantization.models import T, small
from tests.packager.quantization.networks import Made, made
from trtpack_runtime import reference

pytestmark = pytest.mark.slow  # it trains
CLASSES, NOISE = 4, 2.2


def shown(count: int, seed: int) -> tuple[T, T]:
    """Noisy images of stripes that lean four ways, and which way."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    stripes = torch.stack([rows, columns, rows + columns, rows - columns]) * 1.3
    phase = torch.rand(count, 1, 1, generator=generator) * 6
    clean = torch.sin(stripes[labels] + phase)[:, None].expand(-1, 3, -1, -1)
    return clean + NOISE * torch.randn(count, 3, 8, 8, generator=generator), labels


def train(model: nn.Module, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for step in range(steps):
        x, labels = shown(128, 1000 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()


HELD_OUT = shown(1000, 7)


def accuracy(answers: T) -> float:
    """Percent of the held-out images that are told right."""
    return float((answers.argmax(1) == HELD_OUT[1]).double().mean()) * 100


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = small().train()
    train(model, 250, 5e-3)
    return model.eval()


def as_network(model: nn.Module) -> tuple[Made, float]:
    batch = torch.export.Dim("batch", min=1, max=1000)
    network = made(model, HELD_OUT[0][:8], dynamic=({0: batch},), most=2e-2)
    segment = network.segment
    (answers,) = reference.evaluate(segment.network, segment.constants, [HELD_OUT[0]])
    with torch.no_grad():
        same = answers.argmax(1) == model(HELD_OUT[0]).argmax(1)
    assert float(same.double().mean()) > 0.998
    return network, accuracy(answers)


def test_accuracy_of_training_with_fake_quantizers_and_of_stored_weights(
    trained: nn.Module,
) -> None:
    from torchao import quantization as tq

    with torch.no_grad():
        whole = accuracy(trained(HELD_OUT[0]))
    table = {"float32": whole}
    assert 85 < whole < 99.9, "a model that is always right proves nothing"
    model = prepared(trained)
    train(model, 60, 1e-3)
    network, table["INT8, trained"] = as_network(model.eval().apply(ao.disable_observer))
    assert network.kinds["quantize INT8"] == 4
    for name, config in (
        ("INT8 weights", tq.Int8WeightOnlyConfig()),
        ("INT4 weights", tq.IntxWeightOnlyConfig(torch.int4, tq.PerGroup(8))),
        ("FP8 weights", tq.Float8WeightOnlyConfig()),
    ):
        model = copy.deepcopy(trained)
        tq.quantize_(model, config)
        _, table[name] = as_network(model)
    print({name: round(percent, 2) for name, percent in table.items()})
    assert table["INT8, trained"] >= whole - 0.5
    assert min(table.values()) >= whole - 1
