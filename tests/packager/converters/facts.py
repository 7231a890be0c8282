# SPDX-License-Identifier: Apache-2.0
"""What the converters' own cases tell of each operator: types, open sizes, releases, parts."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from tests.packager.converters.harness import Case, refused, variants
from tests.proving.collecting import collect
from tests.sweep.samples import Sample, operators, samples
from trtpack import coverage
from trtpack.capture import decompositions
from trtpack.converters import load, registered
from trtpack.target import Target, find_target

_RTX = find_target("rtx-4090")
_RELEASES = {
    release: dataclasses.replace(
        find_target("a10"), tensorrt=(*map(int, release.split(".")), 0), stack=f"tensorrt-{release}"
    )
    for release in ("8.6", "10.0", "10.3", "10.8", "10.14", "10.15", "10.16", "11.1")
}
"""Every release that brought a layer or a type, the oldest first."""
aten = torch.ops.aten
_ORDER = ("float32", "float16", "bfloat16", "int64", "int32", "bool", "uint8")


_X, _B = torch.ones(2, 2), torch.ones(2, dtype=torch.bool)
_MORE: tuple[tuple[OpOverload, Any, Any], ...] = (
    (aten.__and__.Tensor, (_B, _B), {}),
    (aten.__or__.Tensor, (_B, _B), {}),
    (aten.__xor__.Tensor, (_B, _B), {}),
    (aten._weight_norm.default, (_X, torch.ones(2, 1)), {}),
    (aten.col2im.default, (torch.ones(1, 4, 4), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1)), {}),
    (aten.conv3d.default, (torch.ones(1, 2, 3, 3, 3), torch.ones(2, 2, 2, 2, 2)), {}),
    (aten.to.dtype_layout, (_X,), {"dtype": torch.float16}),
    (aten.type_as.default, (_X, _B), {}),
)
"""Calls that no sample makes."""


def facts() -> dict[str, dict[str, Any]]:
    """The contents of ``coverage.json``."""
    load()
    cases: dict[str, list[Case]] = defaultdict(list)
    for _, case in collect({}):
        cases[case.op.name()].append(case)
    found = {
        c.name: _of(cases[c.name]) for c in registered() if c.function.__module__[:7] == "trtpack"
    }
    found |= {name: {"parts": parts} for name, parts in _parts(set(found))}
    return dict(sorted(found.items()))


def _of(cases: Sequence[Case]) -> dict[str, Any]:
    """What an operator's cases show; bfloat16, which came with 10.0, says nothing of releases."""
    firsts = [_first(case) for case in cases if _dtype(case) != "bfloat16"]
    releases = [release for release in _RELEASES if release in firsts]
    every = [v for c in cases for v in (c, *variants(c, torch.float16, torch.bfloat16))]
    dtypes = _taken(every, _RTX) or _taken(every, _RELEASES["11.1"])
    return {
        "dtypes": [name for name in _ORDER if name in dtypes],
        "dynamic": any(_takes_open_sizes(case) for case in cases),
        "since": next(iter(releases), ""),
        "all_since": next(reversed(releases), ""),
        "rtx": any(refused(case, _RTX) is None for case in cases),
    }


def _taken(cases: Sequence[Case], target: Target) -> set[str]:
    """The types that a target takes one of the cases in."""
    found: set[str] = set()
    for case in cases:
        if (dtype := _dtype(case)) not in found and refused(case, target) is None:
            found.add(dtype)
    return found


def _first(case: Case) -> str:
    """The first release that takes a case."""
    return next((r for r, target in _RELEASES.items() if refused(case, target) is None), "")


def _takes_open_sizes(case: Case) -> bool:
    opened = [case] if any(i.ranges for i in case.inputs()) else case.openings()
    return any(_is_converted(each) for each in opened)


def _is_converted(case: Case) -> bool:
    try:
        return refused(case, _RELEASES["11.1"]) is None
    except Exception:  # sizes that have to be these, which PyTorch itself says
        return False


def _dtype(case: Case) -> str:
    inputs = case.inputs()
    dtype = inputs[0].dtype if inputs else case.kwargs.get("dtype") or torch.float32
    return str(dtype).removeprefix("torch.")


def _parts(known: set[str]) -> Iterator[tuple[str, list[str]]]:
    """What capture makes of the operators that PyTorch's own samples reach, by name."""
    table, seen = decompositions(), known | set(coverage.PASSES)
    found = (call for o in operators() for s in samples(o, "float32", 2) for call in _calls(s))
    for op, args, kwargs in (*_MORE, *found):
        if op.name() not in seen:
            seen.add(op.name())
            parts = _made_of(op, args, kwargs, table)
            if parts and parts != [op.name()]:
                yield op.name(), parts


def _calls(sample: Sample) -> list[tuple[OpOverload, Any, Any]]:
    """The operators that a call begins with, as ``torch.export`` sees them; none where it cannot
    be traced."""
    found: list[tuple[OpOverload, Any, Any]] = []

    class Recording(fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if isinstance(target, OpOverload) and target.namespace == "aten":
                found.append((target, args, kwargs))
            return super().call_function(target, args, kwargs)

    try:
        with torch.no_grad():
            traced = make_fx(lambda *given: sample.call(given), pre_dispatch=True)(*sample.tensors)
            Recording(traced).run(*sample.tensors)
    except Exception:
        return []
    return found


def _made_of(op: OpOverload, args: Any, kwargs: Any, table: Any) -> list[str]:
    """The operators of a call that is taken apart; none where it cannot be traced."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        given, named = pytree.tree_unflatten(filled, spec)
        return op(*given, **named)

    try:
        with torch.no_grad():
            traced = make_fx(call, decomposition_table=table)(*(leaves[i] for i in places))
    except Exception:
        return []
    targets = (n.target for n in traced.graph.nodes if n.op == "call_function")
    names = {t.name() for t in targets if isinstance(t, OpOverload)}
    return sorted(names - {"aten::detach", "aten::alias"})
