# SPDX-License-Identifier: Apache-2.0
"""Records what a loop repeats, or what a conditional chooses between.

def step(inner: Region, states, slices):
    (total,) = states
    total = inner.ctx.elementwise("SUM", total, inner.bring(bias))
    return [total, total]  # the next states, then what the step answers

last, every = scan(ctx, step, [start], [x], length=x.shape[0], axis=0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Network, Tensor

from .context import Context
from .refusals import Refused

Step = Callable[["Region", list[Tensor], list[Tensor]], Sequence[Tensor]]


_OPEN_BYTES = (
    "within a conditional or a loop TensorRT would read the open sizes of a uint8 tensor there, "
    "which it has at a network's borders only"
)


class Region:
    """A region under construction; ``ctx`` records its layers.

    Tensors from outside are read by way of ``bring``; ``outside`` are those, for the layer that
    will own the region. A UINT8 goes in and out as its numbers in FLOAT.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx, self._recorder = ctx.region()
        self._around = ctx
        self.outside: list[Tensor] = []
        self._brought: dict[str, Tensor] = {}

    def input(self, like: Tensor) -> Tensor:
        """The region's next input, of ``like``'s type and shape."""
        return self._recorder.region_input(like, f"{self.ctx.scope}/{like.name.rpartition('/')[2]}")

    def bring(self, tensor: Tensor) -> Tensor:
        """A tensor from outside, as an input of the region; a constant is itself."""
        if self.ctx.is_constant(tensor):
            return tensor
        if tensor.dtype == "UINT8":
            if not dims.is_static(tensor.shape):
                raise Refused(_OPEN_BYTES)
            return self.ctx.as_bytes(self.bring(self._around.cast(tensor, "FLOAT")))
        if tensor.name not in self._brought:
            self._brought[tensor.name] = self.input(tensor)
            self.outside.append(tensor)
        return self._brought[tensor.name]

    def finish(self, outputs: Sequence[Tensor]) -> Network:
        """The region with these outputs; one that no layer within made gets a layer."""
        values = [self.ctx.cast(t, "FLOAT") if t.dtype == "UINT8" else t for t in outputs]
        names = [
            t.name if self._recorder.makes(t) else self.ctx.add("identity", {"input": t}).name
            for t in values
        ]
        return self._recorder.finish_region(names)


def scan(
    ctx: Context,
    step: Step,
    states: Sequence[Tensor],
    scanned: Sequence[Tensor] = (),
    *,
    length: Dim,
    axis: int,
    reverse: bool = False,
) -> tuple[Tensor, ...]:
    """A loop over the slices of ``scanned`` along ``axis``, backwards with ``reverse``.

    ``step`` gets the region, the states and the slices, and answers the next states and what the
    step answers. The loop answers the last states and the steps' answers stacked along ``axis``.
    """
    body = Region(ctx)
    inside = [body.input(state) for state in states]
    slices = [
        body.input(Tensor(x.name, x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :])))
        for x in scanned
    ]
    network = body.finish(step(body, inside, slices))
    operands = {"states": states, "scanned": scanned, "captured": body.outside}
    return ctx.add_all(
        "scan",
        {name: tuple(tensors) or None for name, tensors in operands.items()},
        {"body": network},
        length=length,
        axis=axis,
        reverse=reverse,
    )
