# SPDX-License-Identifier: Apache-2.0
"""Symbolic sizes of torch (``SymInt``) as size expressions over a graph's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils._sympy import functions as torch_sympy
from torch.utils._sympy.symbol import SymT, symbol_is_type

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim

from .scaled_sizes import scaled

_UNSCALED = "a size times {:g} rounds in floating point as no quotient of numbers does"


class UnknownSymbolError(Exception):
    """A size depends on a symbol that no input's shape reveals, or for another ``reason``."""

    def __init__(self, symbol: str, reason: str = "") -> None:
        super().__init__(reason or f"size {symbol} is not a dimension of any input")
        self.symbol = symbol
        self.reason = reason or f"size {symbol} depends on data, which PyTorch tells"


class Symbols:
    """Maps torch's size symbols to dims of named tensors: inputs, and what data sizes."""

    def __init__(self, tensors: Iterable[tuple[str, torch.Tensor]] = ()) -> None:
        self._dims: dict[sympy.Symbol, Dim] = {}
        derived: list[tuple[sympy.Expr, Dim]] = []
        for name, tensor in tensors:
            for axis, size in enumerate(tensor.shape):
                if not isinstance(size, torch.SymInt):
                    continue
                expression = sympy.sympify(size.node.expr)
                if isinstance(expression, sympy.Symbol):
                    self._dims.setdefault(expression, dims.dim(name, axis))
                else:
                    derived.append((expression, dims.dim(name, axis)))
        for expression, value in derived:
            self._solve(expression, value)

    @classmethod
    def of(cls, module: fx.GraphModule) -> Symbols:
        """The symbols that the tensors a graph takes reveal."""
        inputs = module.graph.find_nodes(op="placeholder")
        values = ((n.name, n.meta["val"]) for n in inputs)
        return cls((n, v) for n, v in values if isinstance(v, torch.Tensor))

    def told_by(self, name: str, value: torch.Tensor) -> None:
        """Reads sizes that only data tells, and that are not known yet, off a tensor."""
        for axis, size in enumerate(value.shape):
            symbol = told_by_data(size)
            if symbol is not None and symbol not in self._dims:
                self._dims[symbol] = dims.dim(name, axis)

    def measured(self, node: fx.Node) -> None:
        """Takes a size that a node reads off a tensor for the tensor's, whatever its symbol."""
        if node.target is torch.ops.aten.sym_size.int:
            source, axis = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(axis, int)
            symbol, size = told_by_data(node.meta["val"]), source.meta["val"].shape[axis]
            if symbol is not None and not self.knows(symbol):
                with suppress(UnknownSymbolError):
                    self._dims[symbol] = self.dim(size)

    def learn(
        self, value: torch.Tensor, name: str, shape: Iterable[Dim]
    ) -> Iterator[tuple[Dim, float]]:
        """Takes what ``told_by`` read off ``name`` as dims of ``shape``.

        Answers those, each with the most that torch says of it.
        """
        for axis, (size, now) in enumerate(zip(value.shape, shape, strict=True)):
            symbol = told_by_data(size)
            if symbol is not None and self._dims.get(symbol) == dims.dim(name, axis):
                self._dims[symbol] = now
                assert isinstance(size, torch.SymInt)
                upper = size.node.shape_env.var_to_range[symbol].upper
                yield now, int(upper) if upper.is_Integer else math.inf

    def knows(self, symbol: sympy.Symbol) -> bool:
        """Whether a symbol can be read off the inputs."""
        return symbol in self._dims

    def dim(self, size: int | torch.SymInt | sympy.Expr) -> Dim:
        """The expression of a size.

        Raises:
            UnknownSymbolError: it depends on something no input's shape tells.
        """
        if isinstance(size, int):
            return size
        return self._walk(sympy.sympify(size.node.expr if isinstance(size, torch.SymInt) else size))

    def shape(self, sizes: Iterable[int | torch.SymInt]) -> tuple[Dim, ...]:
        """The expressions of several sizes; raises as ``dim``."""
        return tuple(self.dim(size) for size in sizes)

    def _solve(self, expression: sympy.Expr, value: Dim) -> None:
        free = [s for s in expression.free_symbols if s not in self._dims]
        if len(free) != 1:
            return
        (symbol,) = free
        scale, offset = expression.coeff(symbol), expression.subs(symbol, 0)
        if sympy.expand(scale * symbol + offset - expression) == 0 and scale.is_Integer:
            self._dims[symbol] = dims.floordiv(value - self._walk(offset), int(scale))

    def _walk(self, expression: Any) -> Dim:
        if isinstance(expression, sympy.Integer):
            return int(expression)
        if isinstance(expression, sympy.Symbol):
            if expression not in self._dims:
                raise UnknownSymbolError(str(expression))
            return self._dims[expression]
        if (rounded := scaled(expression, self._walk)) is not None:
            return rounded
        if isinstance(expression, sympy.Float):
            raise UnknownSymbolError(str(expression), _UNSCALED.format(float(expression)))
        parts = [self._walk(arg) for arg in expression.args]
        match expression:
            case sympy.Add():
                return _fold(dims.add, parts)
            case sympy.Mul():
                return _fold(dims.mul, parts)
            case sympy.Pow() if isinstance(parts[1], int) and parts[1] >= 0:
                return dims.product((parts[0],) * parts[1])
            case torch_sympy.FloorDiv():
                return dims.floordiv(parts[0], parts[1])
            case torch_sympy.CleanDiv():
                return dims.floordiv(parts[0], parts[1])
            case torch_sympy.CeilToInt():
                return parts[0]
            case torch_sympy.Mod() | torch_sympy.PythonMod() | sympy.Mod():
                return dims.mod(parts[0], parts[1])
            case torch_sympy.Max() | sympy.Max():
                return _fold(dims.maximum, parts)
            case torch_sympy.Min() | sympy.Min():
                return _fold(dims.minimum, parts)
        raise UnknownSymbolError(str(expression))


def told_by_data(size: object) -> sympy.Symbol | None:
    """The symbol of a size that is not known before the data is; None for any other size."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else None
    if isinstance(expression, sympy.Symbol) and symbol_is_type(expression, SymT.UNBACKED_INT):
        return expression
    return None


def _fold(operation: Any, parts: list[Dim]) -> Dim:
    total = parts[0]
    for part in parts[1:]:
        total = operation(total, part)
    return total
