# SPDX-License-Identifier: Apache-2.0
"""What loops and conditionals answer, and how their regions fit their operands."""

from __future__ import annotations

from collections.abc import Sequence

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Network, Tensor

from .rules import (
    Results,
    agree,
    require,
    require_axis,
    require_rank,
    require_shape,
    require_sizes,
    rule,
)


@rule
def scan(
    body: Network,
    length: Dim,
    axis: int,
    reverse: bool,
    states: Sequence[Tensor] = (),
    scanned: Sequence[Tensor] = (),
    captured: Sequence[Tensor] = (),
) -> Results:
    """``body`` maps states, a slice of each scanned tensor and the captured tensors to the next
    states and what the step answers; the loop answers the last states and the steps' answers
    stacked along ``axis``. In reverse it begins with the last slice, which the last answer belongs
    to."""
    require_sizes("attribute length", (length,))
    slices = []
    for tensor in scanned:
        require_axis("axis", axis, tensor.rank)
        fits = agree(tensor.shape[axis], length) is not None
        require(fits, f"operand scanned: wanted {length} along axis {axis}, got {tensor}")
        shape = tensor.shape[:axis] + tensor.shape[axis + 1 :]
        slices.append(Tensor(tensor.name, tensor.dtype, shape))
    _require_inputs("body", body, [*states, *slices, *captured])
    answers = [body.tensor(name) for name in body.outputs]
    require(len(answers) >= len(states), f"region body: wanted {len(states)} states or more")
    for state, after in zip(states, answers, strict=False):
        _require_like("region body, state", after, state)
    stacked: Results = []
    for tensor in answers[len(states) :]:
        require_axis("axis", axis, tensor.rank + 1)
        shape = (*tensor.shape[:axis], length, *tensor.shape[axis:])
        stacked.append((tensor.dtype, shape))
    return [(state.dtype, state.shape) for state in states] + stacked


@rule
def branch(
    condition: Tensor, then: Network, otherwise: Network, captured: Sequence[Tensor] = ()
) -> Results:
    """Answers what one of two functions of the captured tensors does; both answer alike."""
    require_rank("condition", condition, 0)
    for name, region in (("then", then), ("otherwise", otherwise)):
        _require_inputs(name, region, captured)
    first = [then.tensor(name) for name in then.outputs]
    second = [otherwise.tensor(name) for name in otherwise.outputs]
    require(
        len(first) == len(second) > 0,
        f"regions: wanted as many outputs of both, got {len(first)} and {len(second)}",
    )
    for one, other in zip(first, second, strict=True):
        _require_like("region otherwise, output", other, one)
    return [(tensor.dtype, tensor.shape) for tensor in first]


def _require_inputs(name: str, region: Network, wanted: Sequence[Tensor]) -> None:
    got = len(region.inputs)
    require(got == len(wanted), f"region {name}: wanted {len(wanted)} inputs, got {got}")
    for have, want in zip(region.inputs, wanted, strict=True):
        _require_like(f"region {name}, input", have, want)


def _require_like(what: str, have: Tensor, want: Tensor) -> None:
    require(have.dtype == want.dtype, f"{what}: wanted {want.dtype}, got {have}")
    require_shape(what, have, want.shape)
