# SPDX-License-Identifier: Apache-2.0
"""Sizes as integer expressions over ``dim(tensor, axis)``.

A dynamic size is never a tensor in a portable network. It is an expression in canonical form: a sum
of products of *atoms*, where an atom is a tensor's dimension or an operation that is not a
polynomial (floor division, remainder, minimum, maximum). Equal canonical forms mean equal sizes, so
``==`` decides whether two dims are known to agree.

    >>> batch = dim("x", 0)
    >>> (batch * 2 + batch) // 3 == batch
    True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeGuard, Union

Dim = Union[int, "Expr"]
Lookup = Callable[[str, int], Any]
"""``(tensor, axis) -> size``; sizes may be ints or any integer-like value, such as a SymInt."""


@dataclass(frozen=True)
class Atom:
    """A dimension (``op == "dim"``) or a non-polynomial operation over expressions."""

    op: str
    args: tuple[Any, ...]

    def __lt__(self, other: Atom) -> bool:
        return repr(self) < repr(other)


Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Expr:
    """A polynomial over atoms: sorted ``(monomial, coefficient)`` pairs, no zero coefficient."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return add(self, mul(other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return add(other, mul(self, -1))

    def __neg__(self) -> Dim:
        return mul(self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return mul(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self)

    def __str__(self) -> str:
        return " + ".join(_monomial_text(atoms, c) for atoms, c in self.terms) or "0"


def dim(tensor: str, axis: int) -> Expr:
    """The size of ``tensor`` along ``axis`` (counted from 0)."""
    return _of_atom(Atom("dim", (tensor, axis)))


def by_data(axis: int) -> Expr:
    """A size that only the data tells, as ``infer`` gives it; ``owned`` says whose it is."""
    return dim("", axis)


def owned(shape: tuple[Dim, ...], tensor: str) -> tuple[Dim, ...]:
    """The shape of ``tensor``, the sizes that only its data tells being its own."""
    return tuple(substitute(size, lambda name, axis: dim(name or tensor, axis)) for size in shape)


def add(a: Dim, b: Dim) -> Dim:
    """``a + b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    total = dict(_terms(a))
    for atoms, coefficient in _terms(b):
        total[atoms] = total.get(atoms, 0) + coefficient
    return _from_terms(total)


def mul(a: Dim, b: Dim) -> Dim:
    """``a * b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    total: dict[Monomial, int] = {}
    for left, i in _terms(a):
        for right, j in _terms(b):
            atoms = tuple(sorted(left + right))
            total[atoms] = total.get(atoms, 0) + i * j
    return _from_terms(total)


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b``, rounding towards minus infinity; exact quotients are taken apart."""
    if isinstance(b, int):
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
        exact = {atoms: c // b for atoms, c in a.terms if c % b == 0}
        rest = {atoms: c for atoms, c in a.terms if c % b}
        if not rest:
            return _from_terms(exact)
        if exact and b > 0:
            return add(_from_terms(exact), floordiv(_from_terms(rest), b))
    if a == 0:
        return 0
    quotient = _divide(a, b)
    return quotient if quotient is not None else _of_atom(Atom("//", (a, b)))


def mod(a: Dim, b: Dim) -> Dim:
    """``a % b`` with the sign of ``b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if a == b or b == 1:
        return 0
    if isinstance(b, int) and isinstance(a, Expr) and all(c % b == 0 for _, c in a.terms):
        return 0
    return _of_atom(Atom("%", (a, b)))


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    return _extremum("min", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two sizes."""
    return _extremum("max", a, b)


def product(dims: tuple[Dim, ...]) -> Dim:
    """The product of ``dims``; 1 when there are none."""
    one: Dim = 1
    return reduce(mul, dims, one)


def evaluate(value: Dim, lookup: Lookup) -> Any:
    """The value of an expression, each ``dim`` answered by ``lookup``."""
    if isinstance(value, int):
        return value
    total: Any = 0
    for atoms, coefficient in value.terms:
        part: Any = coefficient
        for atom in atoms:
            part = part * _evaluate_atom(atom, lookup)
        total = total + part
    return total


def substitute(value: Dim, lookup: Callable[[str, int], Dim]) -> Dim:
    """The expression with every ``dim`` replaced by what ``lookup`` answers, canonical again."""
    if isinstance(value, int):
        return value
    total: Dim = 0
    for atoms, coefficient in value.terms:
        part: Dim = coefficient
        for atom in atoms:
            part = mul(part, _substitute_atom(atom, lookup))
        total = add(total, part)
    return total


def atoms(value: Dim) -> Iterator[tuple[str, int]]:
    """Every ``(tensor, axis)`` an expression mentions, in order, repeats included."""
    if isinstance(value, int):
        return
    for monomial, _ in value.terms:
        for atom in monomial:
            if atom.op == "dim":
                yield atom.args
            else:
                for arg in atom.args:
                    yield from atoms(arg)


def tensors_in(value: Any) -> Iterator[str]:
    """The tensors whose dims a size mentions, or the sizes in a tuple of whatever depth."""
    if isinstance(value, Expr):
        yield from (tensor for tensor, _ in atoms(value))
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_in(item)


def is_static(shape: tuple[Dim, ...]) -> TypeGuard[tuple[int, ...]]:
    """Whether every dim of ``shape`` is a number."""
    return all(isinstance(d, int) for d in shape)


def to_json(value: Dim) -> Any:
    """``int``, ``{"dim": [tensor, axis]}`` or ``{"op": ..., "args": [...]}``."""
    if isinstance(value, int):
        return value
    terms = [_term_to_json(monomial, c) for monomial, c in value.terms]
    return terms[0] if len(terms) == 1 else {"op": "+", "args": terms}


def from_json(value: Any) -> Dim:
    """The inverse of ``to_json``; ValueError for anything else."""
    match value:
        case bool():
            pass
        case int():
            return value
        case {"dim": [str(tensor), int(axis)]} if type(axis) is int and axis >= 0:
            return dim(tensor, axis)
        case {"op": str(op), "args": list(args)} if op in _OPS and len(args) > 1:
            try:
                return reduce(_OPS[op], [from_json(arg) for arg in args])
            except ZeroDivisionError:
                pass
    raise ValueError(f"not a size expression: {value!r}")


_OPS: Mapping[str, Callable[[Dim, Dim], Dim]] = {
    "+": add,
    "*": mul,
    "//": floordiv,
    "%": mod,
    "min": minimum,
    "max": maximum,
}


def _of_atom(atom: Atom) -> Expr:
    return Expr((((atom,), 1),))


def _terms(value: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(value, int):
        return (((), value),) if value else ()
    return value.terms


def _from_terms(terms: Mapping[Monomial, int]) -> Dim:
    kept = tuple(sorted((item for item in terms.items() if item[1]), key=lambda item: repr(item)))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Expr(kept)


def _divide(a: Dim, b: Dim) -> Dim | None:
    """``a / b`` where ``b`` is one monomial that divides every term of ``a``, else None."""
    divisors = _terms(b)
    if len(divisors) != 1 or isinstance(b, int):
        return 1 if a == b else None
    factor, scale = divisors[0]
    quotient: dict[Monomial, int] = {}
    for monomial, coefficient in _terms(a):
        left = list(monomial)
        for atom in factor:
            if atom not in left:
                return 1 if a == b else None
            left.remove(atom)
        if coefficient % scale:
            return None
        quotient[tuple(left)] = coefficient // scale
    return _from_terms(quotient)


def _extremum(op: str, a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b) if op == "min" else max(a, b)
    if a == b:
        return a
    difference = a - b
    if isinstance(difference, int):
        return a if (difference < 0) == (op == "min") else b
    return _of_atom(Atom(op, tuple(sorted((a, b), key=repr))))


def _evaluate_atom(atom: Atom, lookup: Lookup) -> Any:
    if atom.op == "dim":
        return lookup(*atom.args)
    a, b = (evaluate(arg, lookup) for arg in atom.args)
    match atom.op:
        case "//":
            return a // b
        case "%":
            return a % b
        case "min":
            return min(a, b)
        case _:
            return max(a, b)


def _substitute_atom(atom: Atom, lookup: Callable[[str, int], Dim]) -> Dim:
    if atom.op == "dim":
        return lookup(*atom.args)
    a, b = (substitute(arg, lookup) for arg in atom.args)
    return _OPS[atom.op](a, b)


def _term_to_json(monomial: Monomial, coefficient: int) -> Any:
    factors = [_atom_to_json(atom) for atom in monomial]
    if coefficient != 1 or not factors:
        factors.append(coefficient)
    return factors[0] if len(factors) == 1 else {"op": "*", "args": factors}


def _atom_to_json(atom: Atom) -> Any:
    if atom.op == "dim":
        return {"dim": list(atom.args)}
    return {"op": atom.op, "args": [to_json(arg) for arg in atom.args]}


def _monomial_text(monomial: Monomial, coefficient: int) -> str:
    factors = [_atom_text(atom) for atom in monomial]
    if coefficient != 1 or not factors:
        factors.insert(0, str(coefficient))
    return "*".join(factors)


def _atom_text(atom: Atom) -> str:
    if atom.op == "dim":
        return f"{atom.args[0]}.{atom.args[1]}"
    a, b = atom.args
    return f"{atom.op}({a}, {b})" if atom.op in ("min", "max") else f"(({a}) {atom.op} ({b}))"
