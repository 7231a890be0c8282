# SPDX-License-Identifier: Apache-2.0
"""What a model is called with, from Python: tensors, shapes that vary, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..inputs import check_inputs
from ..options import InputArgument, InputSpec, Options, SampleFile

if TYPE_CHECKING:
    from ..sources import Model

_HINT = "give trtpack.Input(shape=..., dtype=...) or a tensor for every argument"


def called_with(
    model: Model, inputs: Any, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> tuple[Model, tuple[InputArgument, ...]]:
    """The model with the arguments it is called with, and the inputs that are to be drawn.

    Raises:
        ConfigError: arguments that say two things, or shapes below a container.
    """
    from ..sources.methods import are_methods

    if isinstance(inputs, Options):
        raise ConfigError(
            "the options stand where inputs are expected",
            hint="write trtpack.build(model, inputs, options=options)",
        )
    if are_methods(inputs):
        return (model, inputs), ()
    if inputs is None and not kwargs:
        if dynamic_shapes is not None:
            raise ConfigError("dynamic_shapes is given without inputs", hint="give the inputs too")
        return model, ()
    args, keywords = _split(inputs, kwargs)
    given = [*args, *keywords.values()]
    if not any(isinstance(value, InputSpec | SampleFile) for value in given):
        _check_plain(given)
        module = model[0] if isinstance(model, tuple) else model
        return (module, args, keywords, dynamic_shapes), ()
    if dynamic_shapes is not None:
        raise ConfigError(
            "dynamic_shapes is given beside inputs that vary themselves",
            hint="give tensors with dynamic_shapes, or trtpack.Input without",
        )
    specs = [_spec(value, None) for value in args]
    specs += [_spec(value, name) for name, value in keywords.items()]
    check_inputs(spec for spec in specs if isinstance(spec, InputSpec))
    return (model[0] if isinstance(model, tuple) else model), tuple(specs)


def _split(inputs: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    keywords = dict(kwargs or {})
    if isinstance(inputs, Mapping):
        twice = sorted(keywords.keys() & inputs.keys())
        if twice:
            raise ConfigError(
                f"input {twice[0]} is given twice", hint="give it in inputs or in kwargs"
            )
        return (), {**inputs, **keywords}
    if inputs is None:
        return (), keywords
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return tuple(inputs), keywords
    return (inputs,), keywords


def _spec(value: Any, name: str | None) -> InputArgument:
    """One argument as a shape: what is drawn for a tensor has its shape, type and range."""
    import torch

    if isinstance(value, torch.Tensor):
        value = _like(value)
    if not isinstance(value, InputSpec | SampleFile):
        raise ConfigError(
            f"an argument of type {type(value).__name__} stands beside one that varies", hint=_HINT
        )
    return value if name is None else replace(value, name=name)


def _like(tensor: Any) -> InputSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point() or not tensor.numel() or dtype == "bool":
        return InputSpec(None, tuple(tensor.shape), dtype)
    return InputSpec(
        None, tuple(tensor.shape), dtype, float(tensor.min()), float(tensor.max()) + 1.0
    )


def _check_plain(given: Sequence[Any]) -> None:
    from torch.utils import _pytree as pytree

    if any(isinstance(leaf, InputSpec | SampleFile) for leaf in pytree.tree_leaves(list(given))):
        raise ConfigError(
            "a trtpack.Input stands inside a container",
            hint="give tensors there, and dynamic_shapes as for torch.export",
        )
