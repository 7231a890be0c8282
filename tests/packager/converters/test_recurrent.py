# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN as loops: numbers, layers, and what a refit has to find."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    converted,
    dynamic,
    f32,
    refusal,
    weight,
)

aten = torch.ops.aten
GATES = {aten.lstm.input: 4, aten.gru.input: 3, aten.rnn_tanh.input: 1, aten.rnn_relu.input: 1}
L, N, I, H = 4, 2, 3, 5  # noqa: E741 - the letters of the documentation


def call(
    op: Any,
    *,
    layers: int = 1,
    both: bool = False,
    batch_first: bool = False,
    biases: bool = True,
    projected: int = 0,
    ranges: dict[str, tuple[int, int, int]] | None = None,
    train: bool = False,
    dropout: float = 0.0,
    weights: Any = weight,
) -> Case:
    """A call as ``torch.nn.LSTM`` and its like make it; ``ranges`` gives L and N."""
    directions, hidden = 1 + both, projected or H
    params: list[Input] = []
    for layer in range(layers):
        taken = hidden * directions if layer else I
        for _ in range(directions):
            rows = GATES[op] * H
            shapes = [(rows, taken), (rows, hidden), *[(rows,)] * (2 * biases)]
            shapes += [(projected, H)] * bool(projected)
            params += [weights(f32(*shape, low=-0.4, high=0.4)) for shape in shapes]
    open_dims = ranges or {}
    at = {"L": int(batch_first), "N": int(not batch_first)}
    x = f32(*((N, L, I) if batch_first else (L, N, I)), low=-1, high=1)
    states = [f32(layers * directions, N, size, low=-1, high=1) for size in (hidden, H)]
    if open_dims:
        x = dynamic(x, {at[name]: sizes for name, sizes in open_dims.items()})
        if "N" in open_dims:
            states = [dynamic(state, {1: open_dims["N"]}) for state in states]
    hx: Any = states if op is aten.lstm.input else states[0]
    return Case(op, x, hx, params, biases, layers, dropout, train, both, batch_first)


def label(case: Case) -> str:
    """The call without its many weights."""
    x, _, _, *rest = case.args
    return f"{case.op}({x}, {rest})"


ALL = {"L": (1, 4, 7), "N": (1, 3, 6)}
QUICK = [
    call(aten.lstm.input, batch_first=True, ranges=ALL),
    call(aten.gru.input, both=True, ranges={"L": (1, 4, 7)}),
    call(aten.rnn_tanh.input, biases=False),
    call(aten.rnn_relu.input, batch_first=True, ranges={"N": (1, 3, 6)}),
]
MORE = [
    call(aten.lstm.input, layers=2, both=True, batch_first=True, ranges=ALL),
    *(
        call(op, layers=layers, both=both, batch_first=first, biases=biases, ranges=ALL)
        for op in GATES
        for layers, both, first, biases in (
            (1, False, False, True),
            (2, True, False, False),
            (3, False, True, True),
        )
    ),
    call(aten.lstm.input, projected=2, layers=2, both=True),
    call(aten.lstm.input, projected=2, biases=False, ranges=ALL),
    call(aten.lstm.input, dropout=0.5, layers=2),
    call(aten.gru.input, dropout=0.5, train=True),
    call(aten.lstm.input, weights=lambda tensor: tensor),
]


@pytest.mark.parametrize("case", QUICK, ids=label)
def test_recurrent(check: Checker, case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE, ids=label)
def test_recurrent_in_every_form(check: Checker, case: Case) -> None:
    check(case)


def test_a_layer_and_direction_is_one_loop_after_one_product() -> None:
    network = converted(call(aten.lstm.input, layers=2, both=True, ranges=ALL)).network
    loops = [layer for layer in network.layers if layer.kind == "scan"]
    assert [loop.attributes["reverse"] for loop in loops] == [False, True] * 2
    assert sum(layer.kind == "matrix_multiply" for layer in network.layers) == len(loops)
    for loop in loops:
        body = [layer.kind for layer in loop.regions["body"].layers]
        assert body.count("matrix_multiply") == 1
        assert len(body) <= 16


def test_the_number_of_layers_does_not_depend_on_the_length() -> None:
    def count(length: int) -> int:
        case = call(aten.gru.input, ranges={"L": (length, length, length)})
        return sum(1 for _ in converted(case).network.every_layer())

    assert count(2) == count(50) < 25


def test_weights_stay_replaceable() -> None:
    segment = converted(call(aten.gru.input))
    assert set(segment.network.constants) >= {"weight3"}
    read = segment.network.layers[-1].operand_names() + [
        name for layer in segment.network.layers for name in layer.operand_names()
    ]
    for name in segment.network.constants:
        assert name in read
        constant = segment.network.constants[name]
        assert constant.recipe or constant.data.startswith("weight")


def test_dropout_while_training_is_refused() -> None:
    case = call(aten.lstm.input, layers=2, train=True, dropout=0.25)
    assert refusal(case.op, *case.args) == "dropout 0.25 between the layers draws random numbers"
