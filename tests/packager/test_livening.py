# SPDX-License-Identifier: Apache-2.0
"""Livened models answer their input, and the check catches those that do not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trtpack.livening import DeadModelError, check_alive, liven, vary

TOLERANCE = 1e-4  # of float32 outputs, relative L2
SEED = torch.Generator().manual_seed(0)
IMAGE = (torch.randn(2, 3, 32, 32, generator=SEED),)
VECTORS = (torch.randn(2, 7, 16, generator=SEED),)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def with_zero_head() -> nn.Module:
    module = convolutional()
    nn.init.zeros_(module[5].weight)
    return module


def with_constant_batch_norm() -> nn.Module:
    module = convolutional()
    nn.init.zeros_(module[1].weight)
    return module


def with_untouched_statistics() -> nn.Module:
    module = convolutional()
    module[1].running_var.fill_(1e12)
    return module


class Residual(nn.Module):
    """A class token that attends through layer scales of 1e-6, as fresh vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(16), nn.Linear(16, 16)
        self.gamma = nn.Parameter(torch.full((16,), 1e-6))
        self.token = nn.Parameter(torch.ones(1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.token + self.gamma * self.inner(self.norm(x))


def with_tiny_layer_scale() -> nn.Module:
    torch.manual_seed(0)
    return Residual()


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.table(ids)) * mask[..., None])


@pytest.mark.parametrize(
    ("make", "args"),
    [
        (with_zero_head, IMAGE),
        (with_constant_batch_norm, IMAGE),
        (with_untouched_statistics, IMAGE),
        (with_tiny_layer_scale, VECTORS),
    ],
)
def test_a_dead_model_is_caught_and_livened(
    make: type[nn.Module], args: tuple[torch.Tensor, ...]
) -> None:
    module = make()
    with pytest.raises(DeadModelError) as caught:
        check_alive(module, args, TOLERANCE)
    assert "liven" in caught.value.hint
    liven(module, args)
    assert check_alive(module, args, TOLERANCE) >= 100 * TOLERANCE


def test_outputs_have_unit_scale() -> None:
    module = convolutional()
    liven(module, IMAGE)
    with torch.no_grad():
        assert 0.3 < float(module(*IMAGE).std()) < 3


def test_batch_norms_know_the_statistics_of_what_they_see() -> None:
    module = convolutional()
    liven(module, IMAGE)
    with torch.no_grad():
        seen = module[0](*IMAGE).transpose(0, 1).flatten(1)
    torch.testing.assert_close(module[1].running_mean, seen.mean(1), atol=0.3, rtol=0)
    torch.testing.assert_close(module[1].running_var, seen.var(1), atol=0, rtol=0.3)


def test_a_layer_that_runs_twice_settles_once() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first = self.linear(100 * x)
            return first, self.linear(first)

    module = Recurrent()
    inputs = (torch.randn(16, 8, generator=SEED),)
    liven(module, inputs)
    with torch.no_grad():
        first, _ = module(*inputs)
    assert 0.7 < float(first.std()) < 1.3


def test_integer_inputs_differ_by_their_ids_and_tied_weights_stay_tied() -> None:
    module = Tokens()
    ids, mask = torch.randint(0, 50, (2, 9), generator=SEED), torch.ones(2, 9, dtype=torch.int64)
    liven(module, (ids, mask))
    assert module.head.weight is module.table.weight
    assert check_alive(module, (ids, mask), TOLERANCE) > 0.5
    assert module.table.weight.std() < 0.7  # so that the head's outputs stay moderate


def test_the_same_seed_gives_the_same_weights_whatever_they_were() -> None:
    one, two, other = convolutional(), convolutional(), convolutional()
    nn.init.normal_(two[0].weight)
    liven(one, IMAGE, seed=3)
    torch.rand(17)  # the global generator does not matter
    liven(two, IMAGE, seed=3)
    liven(other, IMAGE, seed=4)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert not torch.equal(one[5].weight, other[5].weight)


def test_nothing_but_values_changes() -> None:
    module = convolutional().train()
    before = copy.deepcopy(module)
    liven(module, IMAGE)
    assert module.training
    assert {n: v.shape for n, v in module.state_dict().items()} == {
        n: v.shape for n, v in before.state_dict().items()
    }
    for child in module.modules():
        assert not child._forward_hooks
        assert not child._forward_pre_hooks


def test_the_state_stays_as_it_was_given() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 4)
            self.register_buffer("total", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            new = self.fc(self.norm(x))
            self.total += new.sum(0)
            return new

    model = Counter().eval()
    liven(model, (torch.rand(8, 4, generator=SEED),))
    assert not model.total.any()
    assert model.norm.running_mean.any()


def test_a_model_made_for_one_batch_size_is_livened_too() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(2, 12))

    module = Fixed()
    nn.init.zeros_(module.linear.weight)
    liven(module, (torch.rand(2, 3, 4, generator=SEED),))
    assert check_alive(module, (torch.rand(2, 3, 4, generator=SEED),), TOLERANCE) > 0.1


def test_the_rounding_of_a_constant_is_not_blown_up() -> None:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.mix, self.head = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            same = self.start(torch.zeros_like(x)).softmax(-1)
            return self.head(self.mix(same) + x)

    module, x = Queries(), torch.randn(7, 33, 64, generator=SEED)
    liven(module, (x,))
    assert check_alive(module, (x,), TOLERANCE) > 0.1
    with torch.no_grad():
        have, exact = module(x), module.double()(x.double())
    assert float((have - exact).norm() / exact.norm()) < 1e-5


def test_keyword_and_nested_inputs() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, pair: dict[str, torch.Tensor], *, scale: torch.Tensor) -> torch.Tensor:
            return self.linear(pair["a"] + pair["b"]) * scale

    module = Nested()
    nn.init.zeros_(module.linear.weight)
    args = ({"a": torch.zeros(2, 4), "b": torch.zeros(2, 4)},)
    kwargs = {"scale": torch.tensor(2.0)}
    liven(module, args, kwargs)
    assert check_alive(module, args, TOLERANCE, kwargs) > 0.1


def test_a_not_finite_output_is_dead() -> None:
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 0

    with pytest.raises(DeadModelError, match="relative difference 0"):
        check_alive(Overflow(), (torch.rand(4, 4, generator=SEED),), TOLERANCE)


def test_an_integer_output_must_differ_somewhere() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 0).argmax(-1)

    with pytest.raises(DeadModelError):
        check_alive(Constant(), (torch.rand(4, 4, generator=SEED),), TOLERANCE)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (torch.tensor([[1, 1, 0], [1, 0, 0]]), True),  # a mask
        (torch.arange(8), True),  # positions
        (torch.tensor([[0, 4, 8], [0, 2, 4]]), True),  # offsets, a row per table
        (torch.tensor([True, False, True]), True),
        (torch.tensor([7, 3, 9, 1, 4, 8, 2, 6]), False),  # ids
        (torch.linspace(20, 35, 16), False),
        (torch.zeros(4), False),
    ],
)
def test_what_varies(value: torch.Tensor, kept: bool) -> None:
    other = vary(value, torch.Generator().manual_seed(0))
    assert torch.equal(other, value) == kept
    assert (other.shape, other.dtype) == (value.shape, value.dtype)
    if not kept and value.any():
        assert other.min() >= value.min()
        assert other.max() <= value.max()
