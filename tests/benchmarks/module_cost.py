#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a loaded module adds to its engines' own calls, in microseconds, with engines that do
nothing.

python tests/benchmarks/module_cost.py [CALLS]

``module`` is a call of the whole module, ``engines`` the bare calls of its engines in it; between
them stand the parts. Every figure is the least of several rounds.
"""

from __future__ import annotations

import sys
import tempfile
import timeit
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.runtime import chains
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.loading import load
from trtpack_runtime.module import BundleModule

ROUNDS = 60
LIMITS_US = {"1 input": 15.0, "8 inputs": 15.0, "3 segments": 40.0}
"""What a call may cost over bare enqueues, engines' own bookkeeping included."""


@dataclass(frozen=True)
class Cost:
    """One module: microseconds a call, by part."""

    name: str
    parts: dict[str, float]

    @property
    def added(self) -> float:
        """What the module adds to its engines."""
        return self.parts["module"] - self.parts["engines"]


def idle(segment: LoadedSegment) -> Callable[..., list[torch.Tensor]]:
    """An engine that answers the same tensors at once."""
    answer = [torch.empty(1, 4) for _ in segment.outputs]

    def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return answer.copy()

    return run


def microseconds(call: Callable[[], Any], calls: int) -> float:
    """The least time of a call."""
    return min(timeit.repeat(call, number=calls, repeat=ROUNDS)) / calls * 1e6


def cost(name: str, module: BundleModule, inputs: Sequence[torch.Tensor], calls: int) -> Cost:
    """Measures one module."""
    with module.watching(idle):
        call = module._loaded.calls["forward"]
        runs = [segment.run for segment in module.segments()]
        values = call.plan.values(inputs)
        outputs = call.plan.outputs(call.plan.run(list(values)))
        engines = [(run, list(inputs)) for run in runs]
        return Cost(
            name,
            {
                "engines": microseconds(lambda: [run(given) for run, given in engines], calls),
                "arguments": microseconds(
                    lambda: call.convention.tensors(tuple(inputs), {}), calls
                ),
                "check": microseconds(lambda: call.check(inputs), calls),
                "plan": microseconds(lambda: call.plan.run(call.plan.values(inputs)), calls),
                "run": microseconds(lambda: call.run(inputs, module._state), calls),
                "answer": microseconds(lambda: call.convention.answer(outputs), calls),
                "module": microseconds(lambda: module(*inputs), calls),
            },
        )


def costs(folder: Path, calls: int) -> list[Cost]:
    """One engine with one input and with eight, and three engines in a row."""
    found = []
    for name, inputs, segments in (("1 input", 1, 1), ("8 inputs", 8, 1), ("3 segments", 1, 3)):
        path = chains.write(folder / f"{inputs}-{segments}.tar", inputs, segments)
        module = load(path, device="cpu")
        given = [torch.full((1, 4), float(i)) for i in range(inputs)]
        found.append(cost(name, module, given, calls))
    return found


def main() -> None:
    """Prints a table; exits 1 where the module alone takes more than it may with its engines."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder:
        found = costs(Path(folder), calls)
    print("µs".ljust(12), *(part.rjust(9) for part in found[0].parts), "added".rjust(9))
    for each in found:
        figures = [f"{us:9.2f}" for us in (*each.parts.values(), each.added)]
        print(each.name.ljust(12), *figures)
    sys.exit(any(each.added > LIMITS_US[each.name] for each in found))


if __name__ == "__main__":
    main()
