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
    input: torch.Tensor, hx: torch.Tensor, params: Any, *rest: Any
) -> tuple[torch.Tensor, ...]:
    *_, bidirectional, _batch_first = rest
    width = hx.shape[2] * (1 + bidirectional)
    return input.new_empty((*input.shape[:2], width)), torch.empty_like(hx)


def _lstm_shapes(
    input: torch.Tensor, hx: list[torch.Tensor], params: Any, *rest: Any
) -> tuple[torch.Tensor, ...]:
    return *_shapes(input, hx[0], params, *rest), torch.empty_like(hx[1])
