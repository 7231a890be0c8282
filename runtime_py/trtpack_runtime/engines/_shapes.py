# SPDX-License-Identifier: Apache-2.0
"""Size expressions as TensorRT shape tensors, each computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtpack_runtime.dims import Atom, Dim, Expr

if TYPE_CHECKING:
    from ._emit import Emitter

_WIDE = "INT64"


class Shapes:
    """Memoised shape arithmetic: every expression becomes layers the first time it is asked for."""

    def __init__(self, emitter: Emitter) -> None:
        self._e = emitter
        self._whole: dict[str, Any] = {}
        self._sizes: dict[Dim, Any] = {}
        self._atoms: dict[Atom, Any] = {}
        self._lists: dict[tuple[Dim, ...], Any] = {}

    def vector(self, sizes: tuple[Dim, ...]) -> Any:
        """A 1-D tensor with one element a size."""
        if sizes not in self._lists:
            self._lists[sizes] = self._vector(sizes)
        return self._lists[sizes]

    def scalar(self, size: Dim) -> Any:
        """A 0-D tensor."""
        if isinstance(size, int):
            return self._e.constant(_WIDE, (), (size,))
        return self._reshaped(self._size(size), ())

    def _vector(self, sizes: tuple[Dim, ...]) -> Any:
        numbers = tuple(size for size in sizes if isinstance(size, int))
        if len(numbers) == len(sizes):
            return self._e.constant(_WIDE, (len(sizes),), numbers)
        if len(sizes) == 1:
            return self._size(sizes[0])
        parts = [self._size(size) for size in sizes]
        layer = self._e.made(self._e.definition.add_concatenation(parts))
        layer.axis = 0
        return self._named(layer, "sizes [" + ", ".join(map(str, sizes)) + "]")

    def _size(self, size: Dim) -> Any:
        """A 1-D tensor of one element."""
        if size not in self._sizes:
            if isinstance(size, int):
                self._sizes[size] = self._e.constant(_WIDE, (1,), (size,))
            else:
                self._sizes[size] = self._sum(size)
        return self._sizes[size]

    def _sum(self, size: Expr) -> Any:
        total: Any = None
        for monomial, coefficient in size.terms:
            term = None if coefficient != 1 or not monomial else self._atom(monomial[0])
            rest = monomial[1:] if term is not None else monomial
            if term is None:
                term = self._size(coefficient)
            for atom in rest:
                term = self._binary("PROD", term, self._atom(atom), str(size))
            total = term if total is None else self._binary("SUM", total, term, str(size))
        return total

    def _atom(self, atom: Atom) -> Any:
        if atom not in self._atoms:
            self._atoms[atom] = self._made(atom)
        return self._atoms[atom]

    def _made(self, atom: Atom) -> Any:
        if atom.op == "dim":
            tensor, axis = atom.args
            return self._element(tensor, axis)
        a, b = (self._size(arg) for arg in atom.args)
        text = f"{atom.args[0]} {atom.op} {atom.args[1]}"
        match atom.op:
            case "//":
                return self._binary("FLOOR_DIV", a, b, text)
            case "%":
                whole = self._binary("PROD", self._binary("FLOOR_DIV", a, b, text), b, text)
                return self._binary("SUB", a, whole, text)
            case _:
                return self._binary(atom.op.upper(), a, b, text)

    def _element(self, tensor: str, axis: int) -> Any:
        if tensor not in self._whole:
            layer = self._e.made(self._e.definition.add_shape(self._e.tensor(tensor)))
            self._whole[tensor] = self._named(layer, f"shape {tensor}")
        layer = self._e.made(self._e.definition.add_slice(self._whole[tensor], (axis,), (1,), (1,)))
        return self._named(layer, f"size {tensor}.{axis}")

    def _binary(self, op: str, a: Any, b: Any, text: str) -> Any:
        operation = self._e.enum("ElementWiseOperation", op)
        return self._named(
            self._e.made(self._e.definition.add_elementwise(a, b, operation)), f"size {text}"
        )

    def _reshaped(self, tensor: Any, shape: tuple[int, ...]) -> Any:
        layer = self._e.made(self._e.definition.add_shuffle(tensor))
        layer.reshape_dims = shape
        return layer.get_output(0)

    def _named(self, layer: Any, text: str) -> Any:
        self._e.name(layer, text[:200])
        return layer.get_output(0)
