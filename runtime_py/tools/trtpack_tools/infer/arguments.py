# SPDX-License-Identifier: Apache-2.0
"""Holds a layer's operands and attributes against its row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trtpack_runtime.dims import Expr
from trtpack_runtime.dtypes import NETWORK_DTYPES
from trtpack_runtime.layers import ENUMS, Kind, Operand
from trtpack_runtime.network import Network, Tensor

from .rules import Mismatch, require, require_type, type_names


def check_operands(row: Kind, given: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
    """Raises ``Mismatch`` for a missing or unknown operand or one of another type."""
    known = {operand.name: operand for operand in row.operands}
    for name in given:
        require(name in known, f"operand {name}: wanted one of {', '.join(known)}")
    for operand in row.operands:
        if operand.name not in given:
            require(operand.optional, f"operand {operand.name}: is missing")
            continue
        for tensor in _tensors(operand, given[operand.name]):
            require_type(operand.name, tensor, operand.types)
            if operand.same is not None and operand.same in given:
                (other,) = _tensors(known[operand.same], given[operand.same])
                require(
                    tensor.dtype == other.dtype,
                    f"operand {operand.name}: wanted {other.dtype} as {operand.same}, got {tensor}",
                )


def check_attributes(row: Kind, given: Mapping[str, Any]) -> None:
    """Raises ``Mismatch`` for a missing or unknown attribute or one of another type."""
    for name in given:
        require(
            name in row.attributes,
            f"attribute {name}: wanted one of {', '.join(row.attributes) or 'none'}",
        )
    for name, spelled in row.attributes.items():
        if name not in given:
            require(spelled.endswith("?"), f"attribute {name}: is missing")
            continue
        wanted, value = spelled.removesuffix("?"), given[name]
        if wanted in ENUMS:
            require(
                isinstance(value, str) and value in ENUMS[wanted],
                f"attribute {name}: wanted {type_names(ENUMS[wanted])}, got {value!r}",
            )
        else:
            require(_IS[wanted](value), f"attribute {name}: wanted {wanted}, got {value!r}")


def check_regions(row: Kind, given: Mapping[str, Network]) -> None:
    """Raises ``Mismatch`` unless the kind's regions are there, and no other."""
    wanted = ", ".join(row.regions) or "none"
    require(set(given) == set(row.regions), f"regions: wanted {wanted}, got {', '.join(given)}")


def _tensors(operand: Operand, given: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    if isinstance(given, Tensor):
        require(
            not operand.variadic, f"operand {operand.name}: wanted several tensors, got {given}"
        )
        return (given,)
    require(operand.variadic, f"operand {operand.name}: wanted one tensor, got {len(given)}")
    if not given:
        raise Mismatch(f"operand {operand.name}: wanted at least one tensor, got none")
    return given


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_dim(value: object) -> bool:
    return _is_int(value) or isinstance(value, Expr)


def _is_number(value: object) -> bool:
    return _is_float(value) or isinstance(value, Expr)


def _is_pair(value: Any, first: type) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], first)


def _tuple_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple | list) and all(map(check, value))


def _is_result(value: Any) -> bool:
    return _is_pair(value, str) and value[0] in NETWORK_DTYPES and _tuple_of(_is_dim)(value[1])


def _is_field(value: Any) -> bool:
    if not _is_pair(value, str):
        return False
    given = value[1]
    return (
        isinstance(given, str) or _is_float(given) or (bool(given) and _tuple_of(_is_float)(given))
    )


_IS: Mapping[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": _is_int,
    "float": _is_float,
    "str": lambda value: isinstance(value, str),
    "ints": _tuple_of(_is_int),
    "floats": _tuple_of(_is_float),
    "dim": _is_dim,
    "dims": _tuple_of(_is_dim),
    "number": _is_number,
    "numbers": _tuple_of(_is_number),
    "axes": lambda value: (
        _tuple_of(_is_int)(value)
        and all(axis >= 0 for axis in value)
        and len(set(value)) == len(value)
    ),
    "results": _tuple_of(_is_result),
    "fields": _tuple_of(_is_field),
    "dtype": lambda value: isinstance(value, str) and value in NETWORK_DTYPES,
}
