# SPDX-License-Identifier: Apache-2.0
"""How the segments of a program hang together: whose tensors are whose, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from . import dims
from .errors import BundleError
from .network import Network
from .program import Program, Segment


class Wired(Protocol):
    """A segment by the program values it reads and defines."""

    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def outputs(self) -> Sequence[str]: ...


def order(segment: Segment, portable: Network | None) -> tuple[Sequence[str], Sequence[str]]:
    """The segment's own input and output names in the engine's order.

    Raises:
        BundleError: they are not those of its graph.
    """
    if portable is not None:
        inputs, outputs = [t.name for t in portable.inputs], list(portable.outputs)
    else:
        assert segment.graph is not None
        inputs, outputs = list(segment.graph["inputs"]), list(segment.graph["outputs"])
    if set(inputs) != set(segment.inputs) or set(outputs) != set(segment.outputs):
        raise malformed(f"the tensors of segment {segment.name} are not those of its graph")
    return inputs, outputs


def check(program: Program, stored: Collection[str]) -> None:
    """Every value is defined once, and before it is used.

    Raises:
        BundleError: it is not; or a constant is none of the ``stored`` tensors.
    """
    known = {name for name in program.inputs if name is not None}
    known |= {slot.input for slot in program.state} | set(program.constants or {})
    for constant in (program.constants or {}).values():
        if constant not in stored:
            raise malformed(f"there is no tensor {constant!r}")
    for segment in program.segments:
        for name in segment.inputs.values():
            if name not in known:
                raise malformed(f"segment {segment.name} reads {name!r} before it is computed")
        known |= set(segment.outputs.values())
    for name in kept(program):
        if name not in known:
            raise malformed(f"the value {name!r} is never computed")


def kept(program: Program) -> set[str]:
    """The values that are wanted after the last segment."""
    outputs = {output for output in program.outputs if isinstance(output, str)}
    return outputs | {slot.output for slot in program.state}


def last_uses(segments: Sequence[Wired], kept: Collection[str]) -> dict[int, list[str]]:
    """Which values are no longer needed after each segment."""
    last: dict[str, int] = {}
    for i, segment in enumerate(segments):
        last.update(dict.fromkeys((*segment.inputs, *segment.outputs), i))
    uses: dict[int, list[str]] = {}
    for name, i in last.items():
        if name not in kept:
            uses.setdefault(i, []).append(name)
    return uses


def plain_output(output: Any, sizes: Mapping[str, tuple[int, ...]]) -> Any:
    """An output that is no tensor: a constant, or a size of the inputs, whose shapes are ``sizes``.

    Raises:
        BundleError: it is neither.
    """
    match output:
        case {"constant": value}:
            return value
        case {"size": size}:
            return dims.evaluate(dims.from_json(size), lambda name, axis: sizes[name][axis])
    raise malformed(f"{output!r} is no output")


def malformed(reason: str) -> BundleError:
    """What is wrong with a program."""
    return BundleError(f"malformed program: {reason}", hint="build the bundle again")
