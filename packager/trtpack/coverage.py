# SPDX-License-Identifier: Apache-2.0
"""What becomes of every ATen operator: a converter, parts that have one, a pass, or a reason.

``coverage.json`` holds what only trying can tell: for a converter the types it was converted with,
whether with open sizes, and the first TensorRT that could; for an operator that is taken apart,
its parts. ``scripts/ops`` writes it from the cases of the converters' tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from . import converters
from .converters import refused
from .target import Target

How = Literal["converter", "decomposed", "functional", "pass", "refused"]
_FACTS = Path(__file__).with_name("coverage.json")

PASSES: Mapping[str, str] = {
    "aten::_assert_async": "drop_asserts",
    "aten::_assert_async.msg": "drop_asserts",
    "aten::_assert_scalar": "drop_asserts",
    "aten::_assert_tensor_metadata": "drop_asserts",
    "aten::sym_constrain_range": "drop_asserts",
    "aten::sym_constrain_range_for_size": "drop_asserts",
    "aten::alias": "drop_no_ops",
    "aten::detach": "drop_no_ops",
    "aten::dropout": "drop_no_ops",
    "aten::lift_fresh_copy": "drop_no_ops",
    **dict.fromkeys(
        (
            "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
            "aten::fake_quantize_per_channel_affine",
            "aten::fake_quantize_per_channel_affine_cachemask",
            "aten::fake_quantize_per_tensor_affine",
            "aten::fake_quantize_per_tensor_affine.tensor_qparams",
            "aten::fake_quantize_per_tensor_affine_cachemask",
        ),
        "recognise_quantization",
    ),
    "aten::sym_numel": "inline_sizes",
    "aten::sym_size.int": "inline_sizes",
    "aten::_unsafe_view": "relax_views",
    "aten::view": "relax_views",
}
"""Operators that a lowering pass removes or replaces before any converter sees them."""


@dataclass(frozen=True)
class Operator:
    """One row: ``how`` it becomes TensorRT, ``detail`` the parts, the pass or the reason.

    ``since`` is the first TensorRT that took any call of it, ``all_since`` the first that took all
    calls its tests make; ``rtx`` whether TensorRT-RTX takes it.
    """

    name: str
    how: How
    detail: str = ""
    dtypes: tuple[str, ...] = ()
    dynamic: bool | None = None
    since: str = ""
    all_since: str = ""
    rtx: bool | None = None

    @property
    def notes(self) -> str:
        """What a reader should know besides."""
        found = []
        if self.all_since and self.all_since != self.since:
            found.append(f"some forms from {self.all_since}")
        if self.rtx is False:
            found.append("not on TensorRT-RTX")
        return ", ".join(found)

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        return {k: v for k, v in asdict(self).items() if v not in ("", (), None)}


def table(pattern: str = "", target: Target | None = None) -> list[Operator]:
    """The operators whose name a pattern finds, by name; for a target, only what it can have."""
    converters.load()
    rows = (row for row in _rows() if re.search(pattern, row.name))
    return [row for row in rows if target is None or _can(row, target)]


def core() -> Iterator[str]:
    """The operators of PyTorch's core ATen set."""
    for name in torch._C._dispatch_get_all_op_names():
        op = converters.registry.operator(name) if name.startswith("aten::") else None
        if op is not None and torch.Tag.core in op.tags:
            yield name


def row(name: str) -> Operator | None:
    """What becomes of one operator; None where nothing is known of it."""
    facts = _facts().get(name, {})
    if name in _converted():
        if name in refused.REASONS and facts.get("since") == "":
            return Operator(name, "refused", refused.REASONS[name])
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        return Operator(name, "converter", **({} if "parts" in told else told))
    if name in PASSES:
        return Operator(name, "pass", PASSES[name])
    if name in refused.REASONS:
        return Operator(name, "refused", refused.REASONS[name])
    if "parts" in facts:
        return _of_parts(name, facts["parts"])
    functional = _functional(name)
    return Operator(name, "functional", functional) if functional else None


def _of_parts(name: str, parts: list[str]) -> Operator:
    """An operator that is taken apart is as good as its parts."""
    for part in parts:
        made = row(part)
        if made is None:
            return Operator(name, "refused", f"its part {part} has no converter")
        if made.how == "refused":
            return Operator(name, "refused", f"its part {part}: {made.detail}")
    return Operator(name, "decomposed", ", ".join(parts))


def _rows() -> Iterator[Operator]:
    known = _converted().union(core(), _facts(), PASSES, refused.REASONS)
    for name in sorted(known.union(_in_place())):
        found = row(name)
        if found is not None:
            yield found


def _in_place() -> Iterator[str]:
    """The operators that change their argument, as ``aten::add_.Tensor``."""
    for name in torch._C._dispatch_get_all_op_names():
        stem = name.partition(".")[0]
        if re.fullmatch(r"aten::\w*[a-z0-9]_", stem) and converters.registry.operator(name):
            yield name


def _functional(name: str) -> str:
    """The operator that capture puts in place of one that changes its argument."""
    stem, _, overload = name.partition(".")
    plain = stem.removesuffix("_") if overload != "out" else stem
    known = _converted() | set(_facts()) | set(PASSES)
    if plain == stem and overload != "out":
        twin = f"{stem}_functional"
        return twin if twin in known else ""
    wanted = [plain + f".{overload}" * (overload not in ("", "out")), f"{plain}.Tensor", plain]
    return next((candidate for candidate in wanted if candidate in known), "")


def _converted() -> set[str]:
    return {c.name for c in converters.registered()}


@cache
def _facts() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(_FACTS.read_text(encoding="utf-8"))
    return found


def _can(row: Operator, target: Target) -> bool:
    if row.how == "refused":
        return False
    if row.how != "converter" or not row.since:
        return True
    if target.engine_kind == "tensorrt-rtx":
        return row.rtx is not False
    return target.tensorrt_at_least(row.since)
