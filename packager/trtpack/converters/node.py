# SPDX-License-Identifier: Apache-2.0
"""Graph nodes as converters see them: bound arguments and described tensors."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx
from torch._ops import OpOverload

from trtpack.branches import COND, branches, operands
from trtpack.quantization.operators import DEQUANTIZE
from trtpack.target import Target
from trtpack_runtime.dtypes import NETWORK_DTYPES, by_torch
from trtpack_runtime.network import Tensor

from . import find, refused, registry
from .symbols import Symbols, UnknownSymbolError, told_by_data

MAX_RANK = 8


@dataclass(frozen=True)
class Refusal:
    """A node that has to stay in PyTorch, and why; ``where`` is the user's module path and line."""

    node: str
    op: str
    reason: str
    where: str


def refusal(node: fx.Node, target: Target, symbols: Symbols) -> str | None:
    """Why a node cannot be converted for ``target``, or None.

    The answer holds for the node alone; converting a whole segment may still find a reason. Where
    there is none, ``symbols`` gains the sizes that the node's result tells.
    """
    op = node.target
    if op is COND:
        return _branch_refusal(node, target, symbols)
    if not isinstance(op, OpOverload):
        return f"{op} is not an ATen operator"
    found = find(op)
    if found is None:
        return refused.reason(op)
    try:
        for value in (*_tensors(_held(node)), *_tensors(node.kwargs)):
            if reason := _untranslatable(value, target, symbols):
                return reason
        bound = bind_node(node, lambda n: described(n, symbols), symbols)
        if found.when and (reason := found.when(**bound, target=target)):
            return reason
        results = leaves(node.meta["val"])
        for value in results:
            symbols.told_by(node.name, value)
        reasons = (_untranslatable(v, target, symbols) for v in results)
        return next((reason for reason in reasons if reason), None)
    except UnknownSymbolError as error:
        return error.reason


def _held(node: fx.Node) -> tuple[Any, ...]:
    """The arguments TensorRT has to hold; of stored numbers the converter makes what it can."""
    first = node.args[0] if node.args else None
    is_stored = node.target is DEQUANTIZE and isinstance(first, fx.Node) and first.op == "get_attr"
    return node.args[1:] if is_stored else node.args


def _branch_refusal(node: fx.Node, target: Target, symbols: Symbols) -> str | None:
    """Why a ``torch.cond`` cannot be converted, or None."""
    condition = node.args[0]
    if not isinstance(condition, fx.Node) or not isinstance(condition.meta["val"], torch.Tensor):
        return "its condition is no tensor"
    if target.engine_kind == "tensorrt-rtx" and _nests_open_sizes(node):
        return "TensorRT-RTX builds no conditional within another where sizes vary"
    for branch in branches(node):
        for inner in branch.graph.nodes:
            computes = inner.op == "call_function" and inner.target is not operator.getitem
            if computes and (size := _told_first(inner, symbols)):
                return f"its branch has {inner.target}, whose data tells the size {size}"
            if computes and (reason := refusal(inner, target, symbols)):
                return f"its branch has {inner.target}: {reason}"
    try:
        reasons = (_untranslatable(v, target, symbols) for v in leaves(node.meta["val"]))
        return next((reason for reason in reasons if reason), None)
    except UnknownSymbolError as error:
        return f"size {error.symbol} depends on which branch is taken"


def _told_first(node: fx.Node, symbols: Symbols) -> sympy.Symbol | None:
    """A size that nothing but a node's result tells."""
    sizes = [told_by_data(d) for value in leaves(node.meta["val"]) for d in value.shape]
    return next((size for size in sizes if size is not None and not symbols.knows(size)), None)


def _nests_open_sizes(node: fx.Node) -> bool:
    inner = [n for b in branches(node) for n in b.graph.nodes if n.target is COND]
    values = [v for n in inner for v in (*_tensors(operands(n)), *leaves(n.meta["val"]))]
    return any(isinstance(size, torch.SymInt) for value in values for size in value.shape)


def bind_node(node: fx.Node, tensor_of: Any, symbols: Symbols) -> dict[str, Any]:
    """A node's arguments by schema name: nodes through ``tensor_of``, sizes as expressions."""

    def resolve(value: Any) -> Any:
        if isinstance(value, fx.Node):
            meta = value.meta["val"]
            return symbols.dim(meta) if isinstance(meta, torch.SymInt) else tensor_of(value)
        if isinstance(value, torch.SymInt):
            return symbols.dim(value)
        if isinstance(value, list | tuple):
            return [resolve(v) for v in value]
        return value

    assert isinstance(node.target, OpOverload)
    bound = registry.bind(node.target, node.args, node.kwargs)
    return {name: resolve(value) for name, value in bound.items()}


def described(node: fx.Node, symbols: Symbols) -> Tensor:
    """A node's result as a ``Tensor`` of its name."""
    return tensor(node.name, node.meta["val"], symbols)


def tensor(name: str, value: torch.Tensor, symbols: Symbols) -> Tensor:
    """A fake tensor's type and shape under a name."""
    return Tensor(name, by_torch(value.dtype).name, symbols.shape(value.shape))


def _untranslatable(value: torch.Tensor, target: Target, symbols: Symbols) -> str | None:
    """Why TensorRT cannot hold a tensor at all, or None; raises where a size is unknown."""
    reason = unheld(value, target)
    if reason is None:
        symbols.shape(value.shape)
    return reason


def unheld(value: torch.Tensor, target: Target) -> str | None:
    """Why the target's TensorRT has no tensors of such a type or rank, or None."""
    name = str(value.dtype).removeprefix("torch.")
    try:
        known = by_torch(value.dtype).name in NETWORK_DTYPES
    except KeyError:
        known = False
    if not known:
        return f"TensorRT has no type {name}"
    if value.dtype == torch.bfloat16 and not target.tensorrt_at_least("10.0"):
        return "TensorRT has bfloat16 from 10.0 on"
    if value.dtype == torch.int8 and not target.tensorrt_at_least("10.0"):
        return "TensorRT 8 takes int8 for scaled numbers only, never as they are"
    if value.dim() > MAX_RANK:
        return f"TensorRT has at most {MAX_RANK} dimensions, this tensor has {value.dim()}"
    return None


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    fx.map_arg(values, lambda n: found.extend(leaves(n.meta["val"])))
    return found


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors of a node's result, one or several."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return []
