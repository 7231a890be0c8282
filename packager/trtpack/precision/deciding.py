# SPDX-License-Identifier: Apache-2.0
"""Decides what every operator computes in: pins, then rules and ranges, then the fewest casts."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from ..capture import constant_of
from ..errors import ConfigError
from ..node_places import module_path, where
from ..options import Pin
from ..spelling import first_of
from .borders import Value, fewest_casts
from .plan import NAMES, TYPES, Choice, Decisions, Finding, Request, matched
from .ranges import HEADROOM, Range, floats, range_of
from .rules import ANGLES, need, numbers, packet

_SMALL = (torch.float16, torch.bfloat16)
_TYPES = (torch.float32, *_SMALL)
_MOST_NAMES = 5
_LOWEST = torch.finfo(torch.float32).max
"""What masks add to hide: no number of the model's."""


def decide(graph: fx.Graph, request: Request, ranges: Mapping[str, Range]) -> Decisions:
    """What every operator that can be cast computes in.

    Raises:
        ConfigError: a pin that means no operator, or none that computes in floating point.
    """
    return _Deciding(graph, request, ranges).run()


def castable(node: fx.Node) -> bool:
    """Whether an operator reads floating-point tensors and could read others."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    if packet(node.target) is None or packet(node.target) == "_to_copy":
        return False
    values = [node.meta.get("val"), *(a.meta.get("val") for a in node.all_input_nodes)]
    if any(isinstance(v, torch.Tensor) and v.is_complex() for v in values):
        return False
    types = {tensor.dtype for value in values for tensor in floats(value)}
    reads = any(True for a in node.all_input_nodes for _ in floats(a.meta.get("val")))
    return reads and types <= set(_TYPES)


def own_type(node: fx.Node) -> torch.dtype | None:
    """The type an operator computes in as the model has it: the widest that it reads, else what it
    answers."""
    reads = [t.dtype for a in node.all_input_nodes for t in floats(a.meta.get("val"))]
    types = reads or [t.dtype for t in floats(node.meta.get("val"))]
    return max(types, key=lambda t: t.itemsize, default=None)


class _Deciding:
    def __init__(self, graph: fx.Graph, request: Request, ranges: Mapping[str, Range]) -> None:
        self.graph, self.request, self.ranges = graph, request, ranges
        self.made = Decisions()
        self.known: dict[fx.Node, Range] = {}
        self.nodes = [node for node in graph.nodes if castable(node)]
        self.angles = _angles(self.nodes)

    def run(self) -> Decisions:
        pinned = self._pinned()
        half = self.request.is_mixed and self._is_half()
        free: list[fx.Node] = []
        for node in self.nodes:
            if node in pinned:
                self.made.choices[node] = pinned[node]
                self._warn(node, pinned[node].dtype)
            elif self.request.dtype is None or half:
                self._keep(node, "as the model has it")
            elif self.request.is_mixed:
                self._by_rule(node, self.request.dtype, free)
            else:
                self._uniform(node, self.request.dtype)
        if free:
            self._settle(free)
        return self.made

    def _pinned(self) -> dict[fx.Node, Choice]:
        """The last pin that means each operator."""
        found: dict[fx.Node, Choice] = {}
        for pin in self.request.pins:
            meant = [n for n in self.nodes if matched(pin, names(n))]
            wide = pin.precision == "fp16-fp32acc"
            sums = [n for n in meant if _sums(n)]
            if not meant or (wide and not sums):
                raise self._no_operator(pin, bool(meant))
            for node in meant:
                why = f"pinned by {pin}"
                found[node] = Choice(TYPES[pin.precision], why, wide and node in sums)
        return found

    def _no_operator(self, pin: Pin, meant: bool) -> ConfigError:
        if meant:
            what = "means no product, which alone sums in a type of its own"
            return ConfigError(f"--pin '{pin}' {what}", hint="pin it to fp16")
        every = [n for n in self.graph.nodes if n.op == "call_function"]
        if any(matched(pin, names(n)) for n in every):
            return ConfigError(
                f"--pin '{pin}' means only operators that compute with no floating-point numbers",
                hint="leave it away",
            )
        known = sorted({name for node in self.nodes for name in names(node)} - {""})
        near = difflib.get_close_matches(pin.pattern, known, 3, cutoff=0.5)
        hint = f"nearest are {', '.join(near)}" if near else f"the model has {self._some_names()}"
        return ConfigError(f"--pin '{pin}' means no operator of the model", hint=hint)

    def _some_names(self) -> str:
        """The first of the modules that compute, or of the operators where the root alone does."""
        paths = dict.fromkeys(path for node in self.nodes if (path := module_path(node)))
        some = list(paths) or [node.name for node in self.nodes]
        return first_of(some, _MOST_NAMES) or "no operator with floating-point numbers"

    def _is_half(self) -> bool:
        """Whether a model has products in a small type: it chose its types itself."""
        return any(need(n)[0] == "product" and own_type(n) in _SMALL for n in self.nodes)

    def _keep(self, node: fx.Node, why: str) -> None:
        dtype = own_type(node)
        assert dtype is not None
        self.made.choices[node] = Choice(dtype, why)

    def _uniform(self, node: fx.Node, dtype: torch.dtype) -> None:
        kind, reason = need(node)
        if kind == "other":
            self._keep(node, reason)
            return
        self.made.choices[node] = Choice(dtype, f"--precision {self.request.precision}")
        self._warn(node, dtype)

    def _by_rule(self, node: fx.Node, small: torch.dtype, free: list[fx.Node]) -> None:
        kind, reason = need(node)
        if kind == "other":
            self._keep(node, reason)
        elif kind == "sensitive":
            self.made.choices[node] = Choice(torch.float32, reason)
        elif node in self.angles:
            self.made.choices[node] = Choice(torch.float32, self.angles[node])
        elif found := self._out_of_range(node, small):
            self.made.choices[node] = Choice(torch.float32, found)
            self._tell(node, small, kept=True)
        elif kind == "product":
            self.made.choices[node] = Choice(small, reason)
        else:
            free.append(node)

    def _out_of_range(self, node: fx.Node, dtype: torch.dtype) -> str | None:
        """Why a node's numbers are beyond a type, or None."""
        limits = torch.finfo(dtype)
        for number in numbers(node):
            if 0 < abs(number) < limits.smallest_normal or limits.max < abs(number) < float("inf"):
                return f"takes the number {number:.3g}, which {_name(dtype)} lacks"
        if found := self._beyond(node, dtype):
            return found
        for source in node.all_input_nodes:
            if source is not mask_of(node) and (found := self._beyond(source, dtype)):
                return f"reads {source.name}, which {found}"
        return None

    def _beyond(self, node: fx.Node, dtype: torch.dtype) -> str | None:
        seen = self._range(node, dtype)
        if seen.overflows(dtype):
            near = "" if seen.largest > torch.finfo(dtype).max else f"less than {HEADROOM:g} times "
            return f"reaches {seen.largest:.3g}, {near}beyond {_name(dtype)}'s largest number"
        if seen.underflows(dtype):
            gone = f", {seen.vanishing:.0%} of its numbers vanish" if seen.vanishing else ""
            return f"is too small for {_name(dtype)}{gone}"
        return None

    def _range(self, node: fx.Node, dtype: torch.dtype) -> Range:
        if node not in self.known:
            value = constant_of(node)
            seen = self.ranges.get(node.name, Range())
            self.known[node] = range_of(value, dtype) if value is not None else seen
        return self.known[node]

    def _warn(self, node: fx.Node, dtype: torch.dtype) -> None:
        if dtype in _SMALL:
            self._tell(node, dtype, kept=False)

    def _tell(self, node: fx.Node, dtype: torch.dtype, *, kept: bool) -> None:
        """Notes what a node's own result has beyond a type."""
        seen, text = self._range(node, dtype), self._beyond(node, dtype)
        if text is not None and seen.largest < _LOWEST:
            kind = "overflow" if seen.overflows(dtype) else "underflow"
            self.made.findings.append(Finding(node.name, where(node), kind, text, kept))

    def _settle(self, free: list[fx.Node]) -> None:
        """Gives the free operators the types that need the fewest casts."""
        small = self.request.dtype
        assert small is not None
        fixed: dict[Any, bool] = {n: c.dtype == torch.float32 for n, c in self.made.choices.items()}
        values = []
        for node in self.graph.nodes:
            if node.op == "get_attr" or node.target is operator.getitem:
                continue
            readers = tuple(dict.fromkeys(_readers(node)))
            if not readers or not any(True for _ in floats(node.meta.get("val"))):
                continue
            for one in (node, *readers):
                if one not in free and one not in fixed:
                    fixed[one] = _stays_wide(one)
            values.append(Value(node, readers))
        wide = fewest_casts(values, fixed, free)
        for node in free:
            if node in wide:
                self.made.choices[node] = Choice(torch.float32, "between others in fp32: no casts")
            else:
                reason = need(node)[1] or f"nothing speaks against {NAMES[small]}"
                self.made.choices[node] = Choice(small, reason)


def names(node: fx.Node) -> tuple[str, ...]:
    """What a pin can call an operator: module path, name, operator with and without overload."""
    op = str(node.target)
    return module_path(node), node.name, op, op.rpartition(".")[0], packet(node.target) or op


def _angles(nodes: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """What makes angles and coordinates, back to the products they begin with, and what for: the
    error of a large angle is one of the whole period."""
    found: dict[fx.Node, str] = {}
    for node in nodes:
        place = ANGLES.get(packet(node.target) or "")
        waiting = [] if place is None else [node.args[place]]
        while waiting:
            source = waiting.pop()
            if not isinstance(source, fx.Node) or source in found or not castable(source):
                continue
            kind, _ = need(source)
            if kind in ("product", "free"):
                found[source] = f"makes what {node.name} takes for an angle or a coordinate"
            if kind == "free":
                waiting += source.all_input_nodes
    return found


def _sums(node: fx.Node) -> bool:
    """Whether an operator is one product, whose sums can have a type of their own."""
    return need(node)[0] == "product" and isinstance(node.meta["val"], torch.Tensor)


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    for user in node.users:
        if user.target is operator.getitem:
            yield from _readers(user)
        else:
            yield user


def _stays_wide(node: fx.Node) -> bool:
    """Whether a node that nothing is decided of has float32 before and behind it."""
    if node.op in ("placeholder", "call_function"):
        return own_type(node) not in _SMALL
    types = {t.dtype for a in node.all_input_nodes for t in floats(a.meta.get("val"))}
    return not types & set(_SMALL)


def mask_of(node: fx.Node) -> Any:
    """The additive mask of an attention, whose lowest numbers may be cut."""
    if packet(node.target) != "scaled_dot_product_attention":
        return None
    return node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
