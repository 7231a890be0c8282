# SPDX-License-Identifier: Apache-2.0
"""A bundle of a model for ``trtpack sweep``: its first dimension open, for this machine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from .errors import ConfigError
from .inputs import parse_inputs
from .options import DynamicDim, InputArgument, InputSpec, Options, SizeRange
from .pipeline import build
from .sources import load_source
from .target import AUTO

_BATCH = "batch"
_SIZES = (1, 2, 4, 8)
"""What is measured where nothing was asked for."""


def bundle_of(
    model: str, specs: Sequence[str], sizes: Sequence[int], target: str | None, folder: Path
) -> Path:
    """Builds ``model`` into ``folder`` so that the first dimension of its inputs takes ``sizes``.

    Args:
        model: as ``trtpack build`` takes it.
        specs: its inputs, as ``--input`` gives them; without, those of the model itself.
        sizes: what is to be measured.
        target: for which device; None for this machine.
        folder: where the bundle goes.

    Raises:
        TrtpackError: it cannot be built, or its inputs cannot be told.
    """
    given: Sequence[InputArgument] = parse_inputs(specs) if specs else _own_inputs(model)
    asked = sorted(sizes or _SIZES)
    low, high = asked[0], max(asked[-1], 2)
    wanted = SizeRange(min(low, high - 1), min(max(asked[len(asked) // 2], low), high), high)
    options = Options(
        targets=(target or AUTO,),
        output=folder / "bundle.tar",
        inputs=tuple(_opened(spec, wanted) for spec in given),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export's of torch
        build(model, options)
    return options.output


def _opened(spec: InputArgument, wanted: SizeRange) -> InputSpec:
    if not isinstance(spec, InputSpec):
        raise ConfigError(
            f"a sweep makes inputs of its own, not of {spec}",
            hint="give the shape, such as --input 1x3x224x224",
        )
    if not spec.shape:
        return spec
    first = spec.shape[0]
    if isinstance(first, DynamicDim):
        return spec
    return replace(spec, shape=(DynamicDim(wanted, _BATCH), *spec.shape[1:]))


def _own_inputs(model: str) -> list[InputArgument]:
    """The tensors that a model is called with by itself, as ``--input`` would give them."""
    source = load_source(model)
    leaves = pytree.tree_leaves(source.args)
    flat = all(leaf is argument for leaf, argument in zip(leaves, source.args, strict=False))
    tensors = all(isinstance(x, torch.Tensor) for x in (*leaves, *source.kwargs.values()))
    if not (leaves and flat and tensors and len(leaves) == len(source.args)):
        raise ConfigError(
            f"the inputs of {source.name} are nested, or not all tensors",
            hint="build it with an open batch, and sweep the bundle",
        )
    return [
        *(InputSpec(None, tuple(x.shape), _dtype(x)) for x in source.args),
        *(InputSpec(name, tuple(x.shape), _dtype(x)) for name, x in source.kwargs.items()),
    ]


def _dtype(value: object) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")
