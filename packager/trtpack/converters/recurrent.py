# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN as loops, a ``scan`` for each layer and direction.

What a step takes from its input is one matrix product of all steps, before the loop; the body has
what depends on the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trtpack_runtime.network import Tensor

from . import Context, converter
from .region import Region, scan

aten = torch.ops.aten


@dataclass(frozen=True)
class Cell:
    """The parameters of one layer and direction, as ``state_dict`` has them."""

    from_input: Tensor
    from_state: Tensor
    input_bias: Tensor | None = None
    state_bias: Tensor | None = None
    projection: Tensor | None = None


Step = Callable[[Region, Cell, list[Tensor], Tensor], list[Tensor]]
"""The next states of a cell from its states and what it takes from the input."""


def _unless_training(*, train: bool, dropout: float, num_layers: int, **_: object) -> str | None:
    """Dropout stands between layers and draws numbers only while training."""
    random = train and dropout > 0 and num_layers > 1
    return f"dropout {dropout} between the layers draws random numbers" if random else None


@converter(aten.lstm.input, when=_unless_training)
def lstm(
    ctx: Context,
    input: Tensor,
    hx: list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """lstm.input(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor, Tensor)

    Shapes: input (L, N, I), or (N, L, I) batch first; both states (layers * directions, N, H), the
        hidden one of the projection's size where there is one. L and N may be dynamic.
    Dtypes: float16, bfloat16, float32; the states between steps have the same.
    Errors: none; dropout while training is refused.
    Source: ``torch.nn.LSTM``; gates in the order i, f, g, o.
    """
    has_projection = hx[0].shape[2] != hx[1].shape[2]
    cells = _cells(params, has_biases, has_projection)
    return _layers(ctx, _lstm_step, input, hx, cells, bidirectional, batch_first)


@converter(aten.gru.input, when=_unless_training)
def gru(
    ctx: Context,
    input: Tensor,
    hx: Tensor,
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """gru.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)

    Shapes: input (L, N, I), or (N, L, I) batch first; hx (layers * directions, N, H). L and N may
        be dynamic.
    Dtypes: float16, bfloat16, float32; the state between steps has the same.
    Errors: none; dropout while training is refused.
    Source: ``torch.nn.GRU``; gates in the order r, z, n; r scales the state's part of n.
    """
    cells = _cells(params, has_biases)
    return _layers(ctx, _gru_step, input, [hx], cells, bidirectional, batch_first)


@converter(aten.rnn_tanh.input, when=_unless_training)
def rnn_tanh(
    ctx: Context,
    input: Tensor,
    hx: Tensor,
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """rnn_tanh.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)

    Shapes: as ``gru``.
    Dtypes: float16, bfloat16, float32; the state between steps has the same.
    Errors: none; dropout while training is refused.
    Source: ``torch.nn.RNN``.
    """
    cells = _cells(params, has_biases)
    return _layers(ctx, _rnn_step("TANH"), input, [hx], cells, bidirectional, batch_first)


@converter(aten.rnn_relu.input, when=_unless_training)
def rnn_relu(
    ctx: Context,
    input: Tensor,
    hx: Tensor,
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """rnn_relu.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)

    Shapes: as ``gru``.
    Dtypes: float16, bfloat16, float32; the state between steps has the same.
    Errors: none; dropout while training is refused.
    Source: ``torch.nn.RNN``.
    """
    cells = _cells(params, has_biases)
    return _layers(ctx, _rnn_step("RELU"), input, [hx], cells, bidirectional, batch_first)


def _cells(params: list[Tensor], has_biases: bool, has_projection: bool = False) -> list[Cell]:
    """The flat parameters by layer and direction."""
    size = 2 + 2 * has_biases + has_projection
    cells = []
    for i in range(0, len(params), size):
        from_input, from_state, *rest = params[i : i + size]
        input_bias, state_bias = rest[:2] if has_biases else (None, None)
        projection = rest[-1] if has_projection else None
        cells.append(Cell(from_input, from_state, input_bias, state_bias, projection))
    return cells


def _layers(
    ctx: Context,
    step: Step,
    x: Tensor,
    states: Sequence[Tensor],
    cells: list[Cell],
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The output of the last layer, then every state as it is in the end."""
    directions, axis = 1 + bidirectional, int(batch_first)
    ends: list[tuple[Tensor, ...]] = []
    for layer in range(0, len(cells), directions):
        outputs = []
        for reverse in range(directions):
            place = layer + reverse
            start = [_at(ctx, state, place) for state in states]
            *end, output = _loop(ctx, step, x, start, cells[place], axis, bool(reverse))
            outputs.append(output)
            ends.append(tuple(ctx.reshape(state, (1, *state.shape)) for state in end))
        x = ctx.concatenate(outputs, -1)
    return x, *(ctx.concatenate(column, 0) for column in zip(*ends, strict=True))


def _at(ctx: Context, states: Tensor, place: int) -> Tensor:
    """The state of one layer and direction."""
    if states.shape[0] != 1:
        states = ctx.slice(states, (place, 0, 0), (1, *states.shape[1:]))
    return ctx.reshape(states, states.shape[1:])


def _loop(
    ctx: Context,
    step: Step,
    x: Tensor,
    states: list[Tensor],
    cell: Cell,
    axis: int,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """One layer in one direction: its last states, then the hidden state of every step."""
    taken = _linear(ctx, x, cell.from_input, cell.input_bias)

    def body(region: Region, before: list[Tensor], slices: list[Tensor]) -> list[Tensor]:
        after = step(region, cell, before, slices[0])
        return [*after, after[0]]

    return scan(ctx, body, states, [taken], length=x.shape[axis], axis=axis, reverse=reverse)


def _linear(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = ctx.matmul(x, weight, transpose_b=True)
    return product if bias is None else ctx.elementwise("SUM", product, bias)


def _from_state(region: Region, cell: Cell, hidden: Tensor) -> Tensor:
    bias = None if cell.state_bias is None else region.bring(cell.state_bias)
    return _linear(region.ctx, hidden, region.bring(cell.from_state), bias)


def _gates(ctx: Context, x: Tensor, count: int) -> list[Tensor]:
    """Equal parts along the last dim."""
    size = x.shape[-1] // count
    return [ctx.slice(x, (0, i * size), (x.shape[0], size)) for i in range(count)]


def _lstm_step(region: Region, cell: Cell, states: list[Tensor], taken: Tensor) -> list[Tensor]:
    ctx, (hidden, memory) = region.ctx, states
    both = ctx.elementwise("SUM", taken, _from_state(region, cell, hidden))
    i, f, g, o = _gates(ctx, both, 4)
    kept = ctx.elementwise("PROD", ctx.activation("SIGMOID", f), memory)
    new = ctx.elementwise("PROD", ctx.activation("SIGMOID", i), ctx.activation("TANH", g))
    memory = ctx.elementwise("SUM", kept, new)
    shown = ctx.activation("TANH", memory)
    hidden = ctx.elementwise("PROD", ctx.activation("SIGMOID", o), shown)
    if cell.projection is not None:
        hidden = _linear(ctx, hidden, region.bring(cell.projection), None)
    return [hidden, memory]


def _gru_step(region: Region, cell: Cell, states: list[Tensor], taken: Tensor) -> list[Tensor]:
    ctx, (hidden,) = region.ctx, states
    from_input = _gates(ctx, taken, 3)
    from_state = _gates(ctx, _from_state(region, cell, hidden), 3)
    reset, update = (
        ctx.activation("SIGMOID", ctx.elementwise("SUM", a, b))
        for a, b in zip(from_input[:2], from_state[:2], strict=True)
    )
    scaled = ctx.elementwise("PROD", reset, from_state[2])
    new = ctx.activation("TANH", ctx.elementwise("SUM", from_input[2], scaled))
    difference = ctx.elementwise("SUB", hidden, new)
    return [ctx.elementwise("SUM", new, ctx.elementwise("PROD", update, difference))]


def _rnn_step(activation: str) -> Step:
    def step(region: Region, cell: Cell, states: list[Tensor], taken: Tensor) -> list[Tensor]:
        ctx = region.ctx
        both = ctx.elementwise("SUM", taken, _from_state(region, cell, states[0]))
        return [ctx.activation(activation, both)]

    return step
