# SPDX-License-Identifier: Apache-2.0
"""Lets recurrent layers be traced without their loop.

PyTorch finds the shape of ``aten.lstm`` and its like by running a decomposition step by step, so
tracing would take as long as the sequence and fix its length. While ``recurrent_shapes`` holds,
the shape is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._C import DispatchKey
from torch._decomp import decomposition_table

aten = torch.ops.aten


@contextmanager
def recurrent_shapes() -> Iterator[None]:
    """Within, tracing takes only shapes of lstm, gru, rnn_tanh and rnn_relu."""
    functions: dict[Any, Callable[..., Any]] = {
        aten.lstm.input: _lstm_shapes,
        aten.gru.input: _shapes,
        aten.rnn_tanh.input: _shapes,
        aten.rnn_relu.input: _shapes,
    }
    keys = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(decomposition_table, functions))
        for op, function in functions.items():
            stack.callback(op._dispatch_cache.clear)
            stack.enter_context(mock.patch.dict(op.py_kernels, dict.fromkeys(keys, function)))
            op._dispatch_cache.clear()
        yield


def _shapes(
    input: torch.Tensor, hx: torch.Tensor, params: list[torch.Tensor], *rest: Any
) -> tuple[torch.Tensor, ...]:
    _has_biases, layers, *_, bidirectional, _batch_first = rest
    directions = 1 + bidirectional
    from_input, from_state = params[:2]
    # what PyTorch looks at only where it computes; a size that varies is then known to be fixed
    torch._check(hx.shape[0] == layers * directions)
    torch._check(hx.shape[2] == from_state.shape[1])
    torch._check(input.shape[2] == from_input.shape[1])
    torch._check(from_input.shape[0] == from_state.shape[0])
    width = from_state.shape[1] * directions
    return input.new_empty((*input.shape[:2], width)), torch.empty_like(hx)


def _lstm_shapes(
    input: torch.Tensor, hx: list[torch.Tensor], params: list[torch.Tensor], *rest: Any
) -> tuple[torch.Tensor, ...]:
    hidden, memory = hx
    torch._check(4 * memory.shape[2] == params[0].shape[0])
    torch._check(hidden.shape[0] == memory.shape[0])
    return *_shapes(input, hidden, params, *rest), torch.empty_like(memory)
