# SPDX-License-Identifier: Apache-2.0
"""Mends what older releases of PyTorch take apart wrongly before Inductor compiles it."""

from __future__ import annotations

from typing import Any


def mend_lstm() -> None:
    """Gives the last states of an LSTM their shape.

    PyTorch (2.11, not 2.13) takes the batch's dimension for the one it added where it takes an LSTM
    apart on a GPU, and answers last states of shape [layers, 1, batch, hidden] for every batch but
    one. Source: ``torch/_decomp/decompositions.py``, ``one_layer_lstm``.
    """
    from torch._decomp import decompositions

    layer = getattr(decompositions, "one_layer_lstm", None)
    if layer is None:  # it is not public
        return

    def mended(inp: Any, hidden: Any, *rest: Any, **named: Any) -> Any:
        out, last = layer(inp, hidden, *rest, **named)
        return out, tuple(x.reshape(h.shape) for x, h in zip(last, hidden, strict=True))

    decompositions.one_layer_lstm = mended  # for this process
