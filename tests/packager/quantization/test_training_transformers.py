# SPDX-License-Identifier: Apache-2.0
"""A transformer trained with fake quantizers keeps its accuracy in INT8."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization as ao
from torch import Tensor, nn

from tests.packager.calibration.learning import CLASSES, accuracy, sequences, trained
from tests.packager.quantization.fake_quantizers import prepared
from tests.packager.quantization.networks import made
from trtpack_runtime import reference

WIDTH, HEADS = 64, 4


class Layer(nn.Module):
    """Attention and a feed-forward network, out of linear layers that can be prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, WIDTH))
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def forward(self, steps: Tensor) -> Tensor:
        split = self.project(self.norms[0](steps)).unflatten(2, (3, HEADS, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind()
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        steps = steps + self.out(seen.transpose(1, 2).flatten(2))
        made: Tensor = steps + self.feed(self.norms[1](steps))
        return made


def transformer() -> nn.Module:
    class Mean(nn.Module):
        def forward(self, steps: Tensor) -> Tensor:
            return steps.mean(1)

    return nn.Sequential(nn.Linear(16, WIDTH), Layer(), Layer(), Mean(), nn.Linear(WIDTH, CLASSES))


@pytest.mark.slow
def test_accuracy_of_training_with_fake_quantizers() -> None:
    torch.manual_seed(0)
    model = trained(transformer(), sequences(0), 1e-3)
    held_out = sequences(2)
    table = {"float32": accuracy(model, held_out)}
    assert 80 < table["float32"] < 99.9, "a model that is always right proves nothing"
    quantized = trained(prepared(model), sequences(0), 2e-4).apply(ao.disable_observer)
    batch = torch.export.Dim("batch", min=1, max=len(held_out[0]))
    network = made(quantized, held_out[0][:8], dynamic=({0: batch},), most=2e-2)
    segment = network.segment
    assert network.kinds["quantize INT8"] == 14, "what ten linear layers and four norms answer"

    def run(steps: Tensor) -> Tensor:
        (answers,) = reference.evaluate(segment.network, segment.constants, [steps])
        return answers

    table["INT8, trained"] = accuracy(run, held_out)
    print({name: round(percent, 2) for name, percent in table.items()})
    assert table["INT8, trained"] >= table["float32"] - 0.5
