# SPDX-License-Identifier: Apache-2.0
"""How long a division of a graph takes on a machine, predicted from work, rates and overheads.

A node takes the longer of its operations and its bytes. In a compiled segment what is fused reads
and writes nothing; a value that crosses a border is written and read, and copied where a compiled
segment takes it from a view that is not contiguous.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx

from .levels import Step
from .machine import Machine
from .work import Work, is_fusible

By = Literal["tensorrt", "inductor", "eager"]


@dataclass(frozen=True)
class CostModel:
    """A graph as predictions see it.

    ``readers`` are the nodes that read each node's results, ``kept`` those whose results the graph
    answers. ``accelerator`` runs accelerated segments. With ``compiles`` the others are to be
    compiled where that is the faster; one operator alone is not, which has nothing to be fused
    with. ``compiles_here`` says that this machine does that. Elsewhere they are predicted as
    PyTorch runs them operator by operator all the same: whether a device has a compiler is known
    only there.
    """

    works: Mapping[fx.Node, Work]
    readers: Mapping[fx.Node, Collection[fx.Node]]
    kept: Collection[fx.Node]
    machine: Machine
    accelerator: By
    compiles: bool
    compiles_here: bool = False

    def runs(self, step: Step) -> tuple[By, float]:
        """What runs a segment the fastest, and its microseconds."""
        if step.accelerated:
            return self.accelerator, self._accelerated(step)
        eager = self._time(step, "eager")
        if not self.compiles or not is_fusible(step.nodes):
            return "eager", eager
        compiled = self._time(step, "inductor")
        if eager <= compiled:
            return "eager", eager
        return "inductor", compiled if self.compiles_here else eager

    def _accelerated(self, step: Step) -> float:
        """The microseconds of an engine; of one operator alone AOTInductor makes, for a GPU, the
        kernels that PyTorch launches, and its call comes to theirs."""
        us = self._time(step, self.accelerator)
        if self.accelerator == "inductor" and self.machine.kernel_us and not is_fusible(step.nodes):
            return max(us, self._time(step, "eager") + self.machine.compiled_us)
        return us

    def _time(self, step: Step, by: By) -> float:
        machine, inside = self.machine, set(step.nodes)
        if by == "eager":
            return sum(map(self._eager, filter(self.works.__contains__, step.nodes)))
        total = machine.engine_us if by == "tensorrt" else machine.compiled_us
        crossing: dict[fx.Node, int] = {}
        for node in step.nodes:
            work = self.works.get(node)
            if work is None:
                continue
            total += self._compiled(node, work, inside, by)
            total += machine.value_us * self._leaves(node, inside)
            for source, nbytes in work.reads.items():
                if source not in inside and source.op == "call_function":
                    crossing[source] = nbytes
        for source, nbytes in crossing.items():
            total += machine.value_us
            origin = self.works.get(source)
            if origin is not None and origin.scatters:
                total += 2 * nbytes / machine.bytes_per_us
        return total

    def _eager(self, node: fx.Node) -> float:
        work, machine = self.works[node], self.machine
        if work.nature == "view":
            return machine.view_us
        nbytes = sum(work.reads.values()) + work.writes
        return self._work_us(work, nbytes, machine.eager_us, "eager")

    def _work_us(self, work: Work, nbytes: float, overhead: float, by: By) -> float:
        machine = self.machine
        flops_us = work.flops / machine.flops_rate(work.dtype)
        if work.nature == "product" and by != "tensorrt":
            flops_us *= machine.torch_products
            if work.light and by == "inductor":
                flops_us *= machine.channels_last
        busy = max(flops_us, nbytes / machine.bytes_per_us)
        # a GPU works while its host prepares the next; a CPU does one after the other
        return max(overhead, busy) if machine.kernel_us else overhead + busy

    def _compiled(self, node: fx.Node, work: Work, inside: set[fx.Node], by: By) -> float:
        kernel = self.machine.kernel_us if by == "tensorrt" else self.machine.torch_kernel_us
        if work.nature == "view":
            return kernel * work.kernels if by == "tensorrt" else 0.0
        more = kernel * max(0, work.kernels - 1) if by == "tensorrt" else 0.0
        read = sum(
            nbytes
            for source, nbytes in work.reads.items()
            if source not in inside or not self._fused(source, node, by)
        )
        unfused = self._leaves(node, inside) or not all(
            self._fused(node, reader, by) for reader in self.readers[node]
        )
        written = work.writes if unfused else 0
        launch = kernel if kernel and self._launched(node, inside, by) else 0.0
        return more + self._work_us(work, read + written, launch, by)

    def _launched(self, node: fx.Node, inside: set[fx.Node], by: By) -> bool:
        """Whether a node ends a kernel: what reads it, behind views too, is not in the same one."""
        if self._leaves(node, inside):
            return True
        readers, seen = list(self.readers[node]), set()
        while readers:
            reader = readers.pop()
            if reader in seen:
                continue
            seen.add(reader)
            if reader in self.works and self.works[reader].nature == "view":
                if self._leaves(reader, inside):
                    return True
                readers += self.readers[reader]
            elif not self._fused(node, reader, by):
                return True
        return False

    def _leaves(self, node: fx.Node, inside: set[fx.Node]) -> bool:
        """Whether a node's results are wanted outside of its segment."""
        return node in self.kept or any(r not in inside for r in self.readers[node])

    def _fused(self, source: fx.Node, reader: fx.Node, by: By) -> bool:
        before, after = self.works.get(source), self.works.get(reader)
        if before is None or after is None:
            return False
        if before.nature == "view" or after.nature == "view":
            return before.nature != "other" and after.nature != "other"
        if after.nature == "reduction":
            return before.nature == "pointwise"
        if after.nature != "pointwise":
            return False
        makers = (
            ("pointwise", "reduction", "product")
            if by == "tensorrt"
            else (
                "pointwise",
                "reduction",
            )
        )
        return before.nature in makers


def predict(model: CostModel, steps: Sequence[Step]) -> float:
    """The microseconds of a division."""
    return sum(model.runs(step)[1] for step in steps)
