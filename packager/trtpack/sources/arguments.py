# SPDX-License-Identifier: Apache-2.0
"""Settles what a model is called with: the user's inputs, the source's own, or real samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import SourceError
from ..options import InputArgument, InputSpec, SampleFile, SizeRange
from .examples import (
    BoundInputs,
    Call,
    bind,
    cast_floats,
    signature_text,
    specs_like,
    traceable,
)
from .exported import input_specs
from .loaded import Loaded
from .sample_files import Sample, check_sample, read_samples, specs_of


def settle_inputs(
    loaded: Loaded, arguments: Sequence[InputArgument], dtype: str | None, seed: int
) -> tuple[Call, BoundInputs | None, list[Call]]:
    """The call to trace with, its specs if it was drawn from specs, and the real samples."""
    files = [a for a in arguments if isinstance(a, SampleFile)]
    specs = [a for a in arguments if isinstance(a, InputSpec)]
    forward = loaded.module.forward
    samples = read_samples(files, _parameters(loaded)) if files else []
    if samples and not specs:
        specs = [*specs_of(samples[0])]
    if not specs and loaded.call is not None:
        return cast_floats(_on_cpu(loaded.call), dtype), None, []
    if not specs and not loaded.inputs:
        raise SourceError(
            f"no example inputs for {loaded.name}: {signature_text(forward)}",
            hint="add --input 1x3x224x224, or return (module, inputs) from the factory",
        )
    defaults = loaded.inputs
    if specs and not defaults and loaded.call is not None:
        defaults = specs_like(loaded.call, forward, dtype)
        if loaded.exported is None:
            specs = [*specs, *_left_out(specs, defaults, forward)]
    bound = bind(specs or defaults, defaults, forward, dtype)
    real = [_call_of(i, sample, bound) for i, sample in enumerate(samples)]
    static = not bound.ranges()
    return (real[0] if real and static else bound.draw(traceable, seed)), bound, real


def _left_out(
    specs: Sequence[InputSpec], known: Sequence[InputSpec], forward: Callable[..., Any]
) -> list[InputSpec]:
    """The inputs that the example has, ``forward`` requires, and ``specs`` do not speak of."""
    parameters = inspect.signature(forward).parameters
    unnamed = sum(spec.name is None for spec in specs)
    given = {*list(parameters)[:unnamed], *(spec.name for spec in specs)}
    required = {name for name, p in parameters.items() if p.default is p.empty}
    return [spec for spec in known if spec.name in required - given]


def _parameters(loaded: Loaded) -> list[str]:
    return list(inspect.signature(loaded.module.forward).parameters)


def _call_of(index: int, sample: Sample, bound: BoundInputs) -> Call:
    """A sample's tensors at the places of their specs, in the specs' types."""
    wanted = dict(zip(bound.parameters, bound.specs, strict=True))
    for name in wanted:
        if name not in sample:
            raise SourceError(
                f"sample {index} has no input {name}, it has {', '.join(sample)}",
                hint="rename the tensors in the file as the inputs are named",
            )
    for name in sample:
        if name not in wanted:
            raise SourceError(
                f"sample {index} has the tensor {name!r}, which is no input ({', '.join(wanted)})",
                hint="rename the tensors in the file as the inputs are named",
            )
    tensors: list[Tensor] = []
    for name, spec in wanted.items():
        check_sample(index, name, sample[name], spec)
        tensors.append(sample[name].to(getattr(torch, spec.dtype or "float32")))
    keywords = dict(zip(bound.kwargs, tensors[len(bound.args) :], strict=True))
    return tuple(tensors[: len(bound.args)]), keywords


def exported_ranges(loaded: Loaded, bound: BoundInputs | None) -> dict[tuple[int, int], SizeRange]:
    """The declared ranges of an exported program's inputs, which have to lie in its own.

    Raises:
        SourceError: a dimension the program has fixed, or a range it does not allow.
    """
    assert loaded.exported is not None
    graph = input_specs(loaded.exported)
    allowed = BoundInputs(graph, {}, ()).ranges()
    if bound is None:
        return allowed
    declared = bound.ranges()
    for name, spec, own in zip(bound.parameters, bound.specs, graph, strict=False):
        if len(spec.shape) != len(own.shape) or any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(spec.shape, own.shape, strict=True)
        ):
            raise SourceError(
                f"input {name} is {own.shape_text} in {loaded.name}.pt2, "
                f"{spec.shape_text} was asked for",
                hint="give the shape it was exported with",
            )
    for (position, axis), size in declared.items():
        limit = allowed.get((position, axis))
        name = bound.parameters[position]
        if limit is None:
            raise SourceError(
                f"dimension {axis} of input {name} is fixed in {loaded.name}.pt2",
                hint="export it again with dynamic_shapes, or give one size",
            )
        if size.minimum < limit.minimum or size.maximum > limit.maximum:
            raise SourceError(
                f"dimension {axis} of input {name} takes {limit.minimum} to {limit.maximum} in "
                f"{loaded.name}.pt2, {size} was asked for",
                hint="give a range inside it",
            )
    return {**allowed, **declared}


def _on_cpu(call: Call) -> Call:
    args, kwargs = pytree.tree_map_only(Tensor, lambda t: t.detach().cpu(), call)
    return tuple(args), dict(kwargs)


def call_text(call: Call) -> str:
    """``(1x3x224x224 float32, ids=1x128 int64)``: the tensors of a call."""
    args, kwargs = call
    shown = [_leaf_text(v) for v in args] + [f"{k}={_leaf_text(v)}" for k, v in kwargs.items()]
    return f"({', '.join(shown)})"


def _leaf_text(value: Any) -> str:
    if isinstance(value, Tensor):
        shape = "x".join(map(str, value.shape)) or "scalar"
        return f"{shape} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
