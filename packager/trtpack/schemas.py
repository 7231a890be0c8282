# SPDX-License-Identifier: Apache-2.0
"""What PyTorch 2.3, the oldest a device may have, knows of the ATen operators.

The snapshot ``aten_torch_2_3.txt`` lists its functional overloads as ``name.overload(arguments)``;
``scripts/snapshot_schemas`` writes it from that release's own ``native_functions.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

SNAPSHOT = "aten_torch_2_3.txt"
OLDEST_TORCH = "2.3"


@dataclass(frozen=True)
class Argument:
    """One argument of an overload, as its schema declares it."""

    name: str
    type: str
    required: bool
    keyword_only: bool

    def accepts(self, value: Any) -> bool:
        """Whether a stored argument may be passed; only None and tensors are judged."""
        if value is None:
            return "?" in self.type
        if isinstance(value, Mapping) and ("value" in value or "constant" in value):
            return self.type.startswith(("Tensor", "Scalar", "SymInt", "int", "float", "bool"))
        return True


Schema = tuple[Argument, ...]


def lacking(graph: Mapping[str, Any]) -> list[str]:
    """Why a stored ATen graph cannot run on PyTorch 2.3, one line each; empty if it can.

    Operators outside ``aten`` come with the module that registers them and are not judged.
    """
    reasons: list[str] = []
    for node in every_node(graph):
        namespace, _, name = node["op"].partition(".")
        if namespace not in ("aten", "prims"):
            continue
        overload = name.removesuffix(".default")
        known = snapshot().get(overload) if namespace == "aten" else None
        if namespace == "prims" or overload not in snapshot():
            reasons.append(f"{node['op']} is newer than PyTorch {OLDEST_TORCH}")
        elif known is not None:
            problem = _mismatch(known, node["args"], node["kwargs"])
            if problem:
                reasons.append(f"{node['op']}: PyTorch {OLDEST_TORCH} {problem}")
    return list(dict.fromkeys(reasons))


def every_node(graph: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The nodes of a stored ATen graph and of the graphs that its ``cond`` nodes have."""
    for node in graph["nodes"]:
        yield node
        for argument in node["args"] if node["op"] == "cond" else ():
            if isinstance(argument, Mapping) and "graph" in argument:
                yield from every_node(argument["graph"])


@cache
def snapshot() -> Mapping[str, Schema | None]:
    """Overload -> arguments; None where torchgen derived the overload and lists no arguments."""
    text = resources.files(__package__).joinpath(SNAPSHOT).read_text(encoding="utf-8")
    schemas: dict[str, Schema | None] = {}
    for line in text.splitlines():
        name, parenthesis, arguments = line.partition("(")
        schemas[name] = parse_arguments(arguments[:-1]) if parenthesis else None
    return schemas


def parse_arguments(text: str) -> Schema:
    """``Tensor self, *, int[2] dim=[0,1]`` as arguments."""
    parsed: list[Argument] = []
    keyword_only = False
    for part in re.split(r",\s*(?![^\[(]*[\])])", text):
        if part == "*":
            keyword_only = True
        elif part:
            declared, _, default = part.partition("=")
            type_, _, name = declared.rpartition(" ")
            parsed.append(Argument(name, type_, default == "", keyword_only))
    return tuple(parsed)


def _mismatch(schema: Schema, args: list[Any], kwargs: Mapping[str, Any]) -> str | None:
    positional = [argument for argument in schema if not argument.keyword_only]
    if len(args) > len(positional):
        return f"takes {len(positional)} positional arguments, not {len(args)}"
    by_name = {argument.name: argument for argument in schema}
    given = {a.name: v for a, v in zip(positional, args)}  # noqa: B905 fewer args than positions
    for name, value in {**given, **kwargs}.items():
        if name not in by_name:
            return f"has no argument {name!r}"
        if not by_name[name].accepts(value):
            return f"has another type for argument {name!r}"
    for argument in schema:
        if argument.required and argument.name not in given and argument.name not in kwargs:
            return f"requires argument {argument.name!r}"
    return None
