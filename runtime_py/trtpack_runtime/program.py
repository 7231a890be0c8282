# SPDX-License-Identifier: Apache-2.0
"""A program: how one method runs on one variant, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BundleError

SCHEMA = "trtpack.program/1"

Output = str | dict[str, Any]
"""A value's name, or ``{"constant": literal}`` for an output that is no tensor."""


@dataclass(frozen=True)
class Segment:
    """One step. ``inputs`` maps the segment's own input names to program values, ``outputs`` its
    own output names to the program values they define.

    A ``network`` segment names the member that holds its portable network; an ``aten`` segment
    carries its graph (``aten.py``).
    """

    name: str
    kind: Literal["network", "aten"]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    network: str | None = None
    graph: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class StateSlot:
    """A mutated buffer: read as value ``input`` before a call, replaced by ``output`` after it.

    Where both are the same value, the method only reads what others change.
    """

    slot: str
    input: str
    output: str

    @property
    def is_read_only(self) -> bool:
        """Whether the method leaves it as it is."""
        return self.input == self.output


@dataclass(frozen=True)
class Program:
    """Segments in execution order over named tensor values.

    ``inputs`` are the flat user inputs in pytree order; an input that is no tensor is None.
    """

    method: str
    inputs: tuple[str | None, ...]
    outputs: tuple[Output, ...]
    segments: tuple[Segment, ...]
    state: tuple[StateSlot, ...] = ()
    constants: Mapping[str, str] | None = None
    """Program values that are stored tensors: value name -> stored name."""
    recipes: Mapping[str, Mapping[str, Any]] | None = None
    """How the derived tensors that are read outside networks follow from others: stored name ->
    recipe (``recipes.py``). Networks keep those of their own constants."""


def to_json(program: Program) -> dict[str, Any]:
    """The program as plain JSON values."""
    return {
        "schema": SCHEMA,
        "method": program.method,
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "state": [{"slot": s.slot, "input": s.input, "output": s.output} for s in program.state],
        "constants": dict(program.constants or {}),
        **({"recipes": dict(program.recipes)} if program.recipes else {}),
        "segments": [
            {
                "name": s.name,
                "kind": s.kind,
                "inputs": dict(s.inputs),
                "outputs": dict(s.outputs),
                **({"network": s.network} if s.kind == "network" else {"graph": s.graph}),
            }
            for s in program.segments
        ],
    }


def from_json(value: Mapping[str, Any]) -> Program:
    """The inverse of ``to_json``; BundleError for another schema or a malformed value."""
    if value.get("schema") != SCHEMA:
        raise BundleError(
            f"cannot read a program of format {value.get('schema')!r}, "
            f"this runtime reads {SCHEMA!r}",
            hint="update trtpack-runtime on this device",
        )
    try:
        segments = tuple(_segment_from_json(item) for item in value["segments"])
        return Program(
            value["method"],
            tuple(value["inputs"]),
            tuple(value["outputs"]),
            segments,
            tuple(StateSlot(s["slot"], s["input"], s["output"]) for s in value["state"]),
            dict(value.get("constants", {})),
            dict(value.get("recipes", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"malformed program: {type(error).__name__}: {error}", hint="build the bundle again"
        ) from error


def _segment_from_json(item: Mapping[str, Any]) -> Segment:
    kind = item["kind"]
    if kind not in ("network", "aten"):
        raise ValueError(f"unknown segment kind {kind!r}")
    part = item["network"] if kind == "network" else item["graph"]
    return Segment(
        item["name"],
        kind,
        dict(item["inputs"]),
        dict(item["outputs"]),
        network=part if kind == "network" else None,
        graph=part if kind == "aten" else None,
    )
