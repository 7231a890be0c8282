# SPDX-License-Identifier: Apache-2.0
"""Turns input specs into example tensors and dynamic shapes; draws further samples."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from ..errors import ConfigError
from ..options import DynamicDim, InputSpec, SizeRange
from ..spelling import nearest

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""

Sizes = Callable[[SizeRange], int]


@dataclass(frozen=True)
class BoundInputs:
    """Input specs at their places: ``args`` by position, ``kwargs`` by name."""

    args: tuple[InputSpec, ...]
    kwargs: Mapping[str, InputSpec]
    parameters: tuple[str, ...]  # the names of ``args``, then ``kwargs``, in forward
    variadic: str | None = None  # forward's ``*args``, where the last ``args`` go

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """All specs in the order in which torch flattens the call."""
        return (*self.args, *self.kwargs.values())

    def ranges(self) -> dict[tuple[int, int], SizeRange]:
        """(flat input, axis) -> the sizes of that dynamic dimension."""
        return {
            (i, axis): dim.range
            for i, spec in enumerate(self.specs)
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, DynamicDim)
        }

    def dynamic_shapes(self) -> dict[str, Any] | None:
        """What ``torch.export`` takes: parameter -> axis -> ``Dim``; None if nothing is dynamic.

        One name is one ``Dim``. Unnamed dimensions are the same if axis and range are the same, so
        that every input of a batched model has the same batch.
        """
        dims: dict[object, Any] = {}
        shapes: dict[str, Any] = {}
        for parameter, spec in zip(self.parameters, self.specs, strict=True):
            shapes[parameter] = {}
            for axis, dim in enumerate(spec.shape):
                if isinstance(dim, DynamicDim):
                    key = dim.name or (axis, dim.range)
                    if key not in dims:
                        owner = parameter.replace(".", "_")
                        name = dim.name or ("batch" if axis == 0 else f"{owner}_dim{axis}")
                        taken = {d.__name__ for d in dims.values()}
                        name = name if name not in taken else f"{owner}_{name}"
                        dims[key] = Dim(name, min=dim.range.minimum, max=dim.range.maximum)
                    shapes[parameter][axis] = dims[key]
        rest = [shapes.pop(p) for p in self.parameters if p.startswith(f"{self.variadic}.")]
        if self.variadic and rest:
            shapes[self.variadic] = tuple(rest)
        return shapes if dims else None

    def draw(self, sizes: Sizes, seed: int) -> Call:
        """Random tensors, the same for the same seed; ``sizes`` chooses the dynamic dimensions."""
        generator = torch.Generator().manual_seed(seed)
        tensors = [draw_tensor(spec, sizes, generator) for spec in self.specs]
        keywords = dict(zip(self.kwargs, tensors[len(self.args) :], strict=True))
        return tuple(tensors[: len(self.args)]), keywords


def bind(
    specs: Sequence[InputSpec],
    defaults: Sequence[InputSpec],
    forward: Callable[..., Any],
    dtype: str | None,
) -> BoundInputs:
    """Puts specs at their places in ``forward``; a default of the same input fills type and range.

    Raises:
        ConfigError: an unknown, missing or doubled input.
    """
    parameters = inspect.signature(forward).parameters
    plain = [
        p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    variadic = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {d.name or plain[i].name: d for i, d in enumerate(defaults)}
    positional = [s for s in specs if s.name is None]
    if len(positional) > len(plain) and variadic is None:
        raise ConfigError(
            f"{len(positional)} inputs without a name, but {signature_text(forward)}",
            hint="remove an --input",
        )
    places = [p.name for p in plain[: len(positional)]]
    named = {s.name: s for s in specs if s.name is not None}
    for name in named:
        if name in places:
            raise ConfigError(
                f"input {name} is given twice, by position and by name",
                hint=f"name the others too, or drop {name}=",
            )
        if not open_ended and (name not in parameters or name == variadic):
            near = nearest(name, [p.name for p in plain])
            raise ConfigError(
                f"there is no input {name!r}: {signature_text(forward)}",
                hint=f"did you mean {near}?" if near else "use a parameter's name",
            )
    given = {*places, *named}
    for parameter in parameters.values():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if required and parameter.name not in given:
            raise ConfigError(
                f"input {parameter.name} is missing: {signature_text(forward)}",
                hint=f"add --input {parameter.name}=SHAPE",
            )
    order = list(parameters)
    names = sorted(named, key=lambda n: order.index(n) if n in order else len(order))
    places += [f"{variadic}.{i}" for i in range(len(positional) - len(places))]
    return BoundInputs(
        tuple(_completed(s, known.get(n), dtype) for s, n in zip(positional, places, strict=True)),
        {n: _completed(named[n], known.get(n), dtype) for n in names},
        (*places, *names),
        variadic,
    )


def draw_tensor(spec: InputSpec, sizes: Sizes, generator: torch.Generator) -> Tensor:
    """One random tensor: floats normal, or uniform in the spec's range; integers uniform."""
    shape = [d if isinstance(d, int) else sizes(d.range) for d in spec.shape]
    dtype: torch.dtype = getattr(torch, spec.dtype or "float32")
    if dtype.is_floating_point:
        if spec.low is None or spec.high is None:
            return torch.randn(shape, generator=generator).to(dtype)
        uniform = torch.rand(shape, generator=generator)
        return (spec.low + uniform * (spec.high - spec.low)).to(dtype)
    low, high = integer_range(spec)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int64).to(dtype)


def integer_range(spec: InputSpec) -> tuple[int, int]:
    """[low, high) of an integer or bool input; single digits where the spec does not say."""
    if spec.low is not None and spec.high is not None:
        return int(spec.low), int(spec.high)
    return {"bool": (0, 2), "uint8": (0, 256)}.get(spec.dtype or "", (0, 10))


def redraw(call: Call, seed: int) -> Call:
    """Another sample like ``call``: same structure and shapes, values spread as the first's are."""
    generator = torch.Generator().manual_seed(seed)

    def again(value: Tensor) -> Tensor:
        if value.numel() == 0 or value.is_complex():
            return value
        if value.is_floating_point():
            wide = value.detach().float()
            spread = wide.std(correction=0)
            noise = torch.randn(value.shape, generator=generator)
            return (noise * spread + wide.mean()).to(value.dtype) if spread > 0 else value
        low, high = int(value.min()), int(value.max())
        if low == high:
            return value
        drawn = torch.randint(low, high + 1, value.shape, generator=generator)
        return drawn.to(value.dtype)

    args, kwargs = pytree.tree_map_only(Tensor, again, call)
    return tuple(args), dict(kwargs)


def spread(start: Call, bound: BoundInputs | None, count: int, seed: int) -> Iterator[Call]:
    """``count`` samples: at the optimum sizes, then the smallest, the largest, and so on."""
    at: tuple[Sizes, ...] = (
        lambda size: size.optimum,
        lambda size: size.minimum,
        lambda size: size.maximum,
    )
    for i in range(count):
        if bound is not None:
            yield bound.draw(at[i % 3], seed + i)
        else:
            yield redraw(start, seed + i) if i else start


def cast_floats(call: Call, dtype: str | None) -> Call:
    """``call`` with its floating tensors in ``dtype``."""
    if dtype is None:
        return call
    wanted: torch.dtype = getattr(torch, dtype)
    args, kwargs = pytree.tree_map_only(
        Tensor, lambda t: t.to(wanted) if t.is_floating_point() else t, call
    )
    return tuple(args), dict(kwargs)


def traceable(size: SizeRange) -> int:
    """A size to trace with: the optimum, but not 1, which torch.export takes for a constant."""
    return size.optimum if size.optimum > 1 else min(size.maximum, 2)


def signature_text(forward: Callable[..., Any]) -> str:
    """``forward takes (x, mask=None)``."""
    parameters = inspect.signature(forward).parameters.values()
    plain = [p.replace(annotation=p.empty) for p in parameters]
    shown = [str(p) for p in plain[:6]] + (["..."] if len(plain) > 6 else [])
    return f"forward takes ({', '.join(shown)})"


def _completed(spec: InputSpec, default: InputSpec | None, dtype: str | None) -> InputSpec:
    """``spec`` with what it leaves open taken from ``default``, floats in the model's dtype."""
    if spec.dtype is not None:
        if default is None or default.dtype != spec.dtype or spec.low is not None:
            return spec
        return dataclasses.replace(spec, low=default.low, high=default.high)
    if default is not None and default.dtype not in (None, "float32"):
        return dataclasses.replace(spec, dtype=default.dtype, low=default.low, high=default.high)
    return dataclasses.replace(spec, dtype=dtype or "float32")
