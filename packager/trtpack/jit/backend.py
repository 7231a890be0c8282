# SPDX-License-Identifier: Apache-2.0
"""The backend ``trtpack`` of ``torch.compile``: what Dynamo calls with each graph it found.

A graph that has to give gradients runs in PyTorch, and so does, with a warning, what cannot be
compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from trtpack.errors import ConfigError
from trtpack.options import Options
from trtpack_runtime.errors import TrtpackError
from trtpack_runtime.starting import DegradedWarning

from .calls import GraphCall
from .graphs import Graph, computes, device_of, gives_gradients, traced
from .making import workshop
from .settings import options_of

_NO_GRADIENTS = "call the model under torch.no_grad(), or after model.requires_grad_(False)"


def backend(
    module: fx.GraphModule, example_inputs: Sequence[Any], **arguments: Any
) -> Callable[..., Any]:
    """``compiled``, with the hint of an error in its text: Dynamo tells no more of it."""
    try:
        return compiled(module, example_inputs, **arguments)
    except TrtpackError as error:
        if error.hint:
            error.args = (f"{error.message}; {error.hint}",)
        raise


def compiled(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Options | Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compiles a graph of Dynamo's for this machine; ``options`` are fields of ``trtpack.Options``.

    Raises:
        ConfigError: options that are unknown, contradict each other or cannot be had here.
        TrtpackError: with ``strict``, whatever would leave the graph to PyTorch.
    """
    settings = options_of(options)
    if mode is not None:
        raise ConfigError(
            f"mode {mode!r} is one of the backend inductor",
            hint="give options={...} with fields of trtpack.Options",
        )
    device = device_of(example_inputs)
    shop = workshop(settings, device.type == "cuda")
    if not computes(module):
        return module.forward
    if gives_gradients(example_inputs):
        if settings.strict:
            raise ConfigError(
                "the graph has to give gradients, which engines do not", hint=_NO_GRADIENTS
            )
        warnings.warn(
            "a graph runs in PyTorch because it has to give gradients, which engines do not: "
            f"{_NO_GRADIENTS}",
            DegradedWarning,
            stacklevel=2,
        )
        return module.forward
    waiting: list[tuple[GraphCall, list[Any]]] = []

    def waits(graph: Graph, values: list[Any]) -> GraphCall:
        waiting.append((GraphCall(graph, shop, device), values))
        return waiting[-1][0]

    made = traced(module, example_inputs, waits)
    for call, values in waiting:
        call.prepare(values)
    return made
