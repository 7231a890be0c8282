# SPDX-License-Identifier: Apache-2.0
"""PyTorch's operators and their samples, always the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

T = torch.Tensor

DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}
"""The types that the product takes as they are, by name."""


@dataclass(frozen=True)
class Sample:
    """One call of an operator: what its tensors are, and how to make it with other ones.

    ``tensors`` stand in the order of the arguments; everything else is bound. The answers of
    ``call`` are flat, values that are no tensors left out. ``wide_call`` is the same with every
    float type among the arguments float64.
    """

    operator: str
    dtype: str
    index: int
    tensors: tuple[T, ...]
    call: Callable[[Sequence[T]], list[T]] = field(repr=False)
    text: str
    wide_call: Callable[[Sequence[T]], list[T]] | None = field(default=None, repr=False)

    def answers(self, tensors: Sequence[T] | None = None) -> list[T]:
        """Eager PyTorch's answers; the tensors given stay as they are."""
        given = self.tensors if tensors is None else tensors
        with torch.no_grad():
            return [answer.clone() for answer in self.call([t.clone() for t in given])]

    def answers_in_float64(self) -> list[T]:
        """Eager PyTorch's answers to the same call with float64 in place of each other float."""
        wide = [t.double() if t.is_floating_point() else t.clone() for t in self.tensors]
        with torch.no_grad():
            return (self.wide_call or self.call)(wide)


def operators() -> list[str]:
    """The name of every operator that has samples, ``name.variant`` where it has several."""
    return sorted(_by_name())


def samples(operator: str, dtype: str, most: int | None = None) -> Iterator[Sample]:
    """The first samples of an operator; none where PyTorch has it not for this type."""
    info = _by_name()[operator]
    if DTYPES[dtype] not in info.supported_dtypes("cpu"):
        return
    torch.manual_seed(zlib.crc32(f"{operator} {dtype}".encode()))
    found = info.sample_inputs("cpu", DTYPES[dtype], requires_grad=False)
    for index, given in enumerate(islice(found, most)):
        yield _sample(info.op, operator, dtype, index, given)


def _sample(op: Any, operator: str, dtype: str, index: int, given: Any) -> Sample:
    leaves, spec = pytree.tree_flatten((given.input, tuple(given.args), dict(given.kwargs)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, T)]
    wide = [torch.float64 if _is_float_type(leaf) else leaf for leaf in leaves]

    def call(tensors: Sequence[T], bound: Sequence[Any] = leaves) -> list[T]:
        filled = list(bound)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        answers = pytree.tree_leaves(op(first, *args, **kwargs))
        return [answer for answer in answers if isinstance(answer, T)]

    tensors = tuple(leaves[place].detach().clone() for place in places)  # some are changed later
    wide_call = partial(call, bound=wide)
    return Sample(operator, dtype, index, tensors, call, _text(given), wide_call)


def _is_float_type(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point


def _text(given: Any) -> str:
    words = [_shown(value) for value in (given.input, *given.args)]
    words += [f"{name}={_shown(value)}" for name, value in given.kwargs.items()]
    return f"({', '.join(words)})"


def _shown(value: Any) -> str:
    if isinstance(value, T):
        sizes = "x".join(map(str, value.shape))
        return f"{str(value.dtype).removeprefix('torch.')}[{sizes}]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).removeprefix("torch.")


@cache
def _by_name() -> dict[str, Any]:
    with torch.backends.__allow_nonbracketed_mutation():  # which the import forbids from then on
        from torch.testing._internal.common_methods_invocations import op_db

    return {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db}
