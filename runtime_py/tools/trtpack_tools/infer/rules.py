# SPDX-License-Identifier: Apache-2.0
"""What rules of inference are made of: the registry, the complaint, sizes that must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from trtpack_runtime.dims import Dim, product
from trtpack_runtime.network import Tensor

Shape = tuple[Dim, ...]
Results = list[tuple[str, Shape]]
Rule = Callable[..., Results]
F = TypeVar("F", bound=Rule)

RULES: dict[str, Rule] = {}


class Mismatch(Exception):
    """Operands or attributes that a kind does not take; ``infer`` adds the kind's name."""


def rule(function: F) -> F:
    """Registers the rule of the kind the function is named after.

    Its parameters are the kind's operands and attributes; a default is TensorRT's own.
    """
    if function.__name__ in RULES:
        raise ValueError(f"two rules for {function.__name__}")
    RULES[function.__name__] = function
    return function


def require(holds: bool, message: str) -> None:
    """Raises ``Mismatch`` unless ``holds``."""
    if not holds:
        raise Mismatch(message)


def require_type(operand: str, tensor: Tensor, wanted: frozenset[str]) -> None:
    """Raises ``Mismatch`` unless the operand has one of these types."""
    if tensor.dtype not in wanted:
        raise Mismatch(f"operand {operand}: wanted {type_names(wanted)}, got {tensor}")


def require_rank(operand: str, tensor: Tensor, *ranks: int) -> None:
    """Raises ``Mismatch`` unless the operand has one of these ranks."""
    if tensor.rank not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise Mismatch(f"operand {operand}: wanted rank {wanted}, got {tensor}")


def require_axis(name: str, axis: int, rank: int) -> None:
    """Raises ``Mismatch`` unless ``0 <= axis < rank``."""
    if not 0 <= axis < rank:
        raise Mismatch(f"attribute {name}: wanted an axis from 0 to {rank - 1}, got {axis}")


def type_names(types: frozenset[str]) -> str:
    """The types in words."""
    return " or ".join(sorted(types))


def agree(a: Dim, b: Dim) -> Dim | None:
    """The size of two dims that must be equal; None where they are known to differ.

    Two expressions that may be equal are taken as equal: TensorRT checks at run time.
    """
    if a == b:
        return a
    if _is_never_zero(a - b):
        return None
    return b if isinstance(b, int) else a


def broadcast(a: Dim, b: Dim) -> Dim | None:
    """The size after broadcasting; None where it is known to fail."""
    if a == 1 or b == 1:
        return b if a == 1 else a
    return agree(a, b)


def broadcast_shapes(names: Sequence[str], tensors: Sequence[Tensor]) -> Shape:
    """The common shape of tensors of equal rank, as TensorRT broadcasts them."""
    shape = tensors[0].shape
    for name, tensor in zip(names[1:], tensors[1:], strict=True):
        require_rank(name, tensor, len(shape))
        shape = _combined(names[0], tensors[0], name, tensor, shape)
    return shape


def require_broadcastable(name: str, tensor: Tensor, to: Shape) -> None:
    """Raises ``Mismatch`` unless ``tensor`` has ``to``'s rank and every dim is ``to``'s or 1."""
    require_rank(name, tensor, len(to))
    for have, want in zip(tensor.shape, to, strict=True):
        if have != 1 and agree(have, want) is None:
            raise Mismatch(f"operand {name}: wanted sizes of {text(to)} or 1, got {tensor}")


def require_shape(name: str, tensor: Tensor, wanted: Shape) -> None:
    """Raises ``Mismatch`` where the operand's shape is known to be another."""
    if tensor.rank != len(wanted) or any(
        agree(a, b) is None for a, b in zip(tensor.shape, wanted, strict=True)
    ):
        raise Mismatch(f"operand {name}: wanted shape {text(wanted)}, got {tensor}")


def require_sizes(name: str, sizes: Shape) -> None:
    """Raises ``Mismatch`` for a negative size."""
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise Mismatch(f"{name}: wanted sizes of at least 0, got {text(sizes)}")


def require_volume(name: str, shape: Shape, of: Shape) -> None:
    """Raises ``Mismatch`` where the element counts are known to differ."""
    if agree(product(shape), product(of)) is None:
        raise Mismatch(f"{name}: wanted as many elements as {text(of)}, got {text(shape)}")


def text(shape: Shape) -> str:
    """A shape in words."""
    return "[" + ", ".join(map(str, shape)) + "]"


def ceildiv(a: Dim, b: int) -> Dim:
    """``a / b`` rounded up."""
    return (a + (b - 1)) // b


def _is_never_zero(difference: Dim) -> bool:
    """Whether a difference of sizes is known not to be 0, dims being 1 or more."""
    if isinstance(difference, int):
        return difference != 0
    signs = {coefficient > 0 for _, coefficient in difference.terms}
    dims_only = all(atom.op == "dim" for monomial, _ in difference.terms for atom in monomial)
    return len(signs) == 1 and dims_only


def _combined(first: str, one: Tensor, second: str, other: Tensor, shape: Shape) -> Shape:
    sizes = []
    for a, b in zip(shape, other.shape, strict=True):
        size = broadcast(a, b)
        if size is None:
            raise Mismatch(f"operand {second}: {other} does not broadcast with {first} {one}")
        sizes.append(size)
    return tuple(sizes)
