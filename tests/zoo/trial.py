# SPDX-License-Identifier: Apache-2.0
"""One model from export to engine: ``python -m tests.zoo.trial NAME [--dynamic] [--float16]``.

After every stage what is known so far is printed as a line of JSON, so that a crash or a time limit
loses only what came later.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tests.zoo import MODELS
from tests.zoo.agreement import agreement
from tests.zoo.batches import at_batch, batch_sizes
from trtpack.capture import capture
from trtpack.errors import CaptureError
from trtpack.golden import copied, unchanged_buffers
from trtpack.livening import liven
from trtpack.lowering import Lowered, lower
from trtpack.options import Options
from trtpack.planning import Planned, plan
from trtpack.target import find_target

TARGET = "rtx-4090"
_ASSERTS = ("_assert", "sym_constrain", "sym_size")


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--float16", action="store_true")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--target", default=TARGET)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    trial = _Trial(options)
    try:
        trial.run()
    except Exception as error:  # a model's failure is what a run is to find out
        traceback.print_exc()
        trial.found["error"] = f"{trial.stage}: {type(error).__name__}: {_first_line(error)}"
    trial.tell()


class _Trial:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.found: dict[str, Any] = {"seconds": {}}
        self.stage = "load"

    def run(self) -> None:
        model, args, shapes = self._loaded()
        if self.options.dynamic and shapes is None:
            self.found["not_asked"] = "its example has no batch that could vary"
            return
        exported = self._exported(model, args, shapes if self.options.dynamic else None)
        if exported is None:
            return
        self.found["operators"] = operators(exported.graph)
        self.tell()
        planned, lowered = self._converted(exported, args)
        self.found |= described(planned, lowered)
        self.tell()
        calls = [args]
        if self.options.dynamic:
            sizes = batch_sizes(args, shapes)
            calls = [at_batch(args, shapes, size) for size in sizes]
            self.found["batches"] = sizes
        with self._timed("evaluate"):
            self.found |= agreement(self.eager, lowered, planned, calls)
        self.tell()
        if not self.options.no_build:
            self._build(planned)

    def tell(self) -> None:
        print(json.dumps(self.found), flush=True)

    def _loaded(self) -> tuple[torch.nn.Module, tuple[Any, ...], Any]:
        """The livened model in its type; ``eager`` is it in float32."""
        name = self.options.name
        model, args, shapes = MODELS[name]()
        liven(model, args)
        self.eager = model
        if self.options.float16:
            model = copy.deepcopy(self.eager).half()
            args = pytree.tree_map_only(torch.Tensor, _half, args)
        return model, args, shapes

    def _exported(self, model: torch.nn.Module, args: Any, shapes: Any) -> Any:
        self.stage = "export"
        try:
            with torch.no_grad(), unchanged_buffers(model), self._timed("export"):
                return torch.export.export(
                    model, copied((args, {}))[0], dynamic_shapes=shapes, strict=False
                )
        except Exception as error:
            traceback.print_exc()
            self.found["not_exportable"] = f"{type(error).__name__}: {_first_line(error)}"
            return None

    def _converted(self, exported: Any, args: Any) -> tuple[Planned, Lowered]:
        self.stage = "decompose"
        with self._timed("decompose"):
            captured = capture(exported, args)
        self.stage = "lower"
        with self._timed("lower"):
            lowered = lower(captured)
        self.stage, target = "convert", find_target(self.options.target)
        with self._timed("convert"):
            planned = plan(lowered, target, Options((target.name,)))
        self.stage = "evaluate"
        return planned, lowered

    def _build(self, planned: Planned) -> None:
        from tests.packager.converters.engine import build

        self.stage = "build"
        with self._timed("build"):
            built = [build(segment) for segment in planned.converted.values()]
        self.found["engine_mb"] = round(sum(b.nbytes for b in built) / 1e6, 1)
        self.found["defined"] = sum(b.layers for b in built)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.found["seconds"][stage] = round(time.perf_counter() - start, 2)


def operators(graph: torch.fx.Graph) -> int:
    """How many operators compute in a graph as exported: no sizes, asserts or unpacking."""
    return sum(
        isinstance(node.target, torch._ops.OpOverload)
        and not node.target.name().partition("::")[2].startswith(_ASSERTS)
        for node in graph.nodes
        if node.op == "call_function"
    )


def described(planned: Planned, lowered: Lowered) -> Mapping[str, Any]:
    """The plan in figures: segments of each kind, layers, what TensorRT refused."""
    kinds = [segment.kind for segment in planned.plan.segments]
    networks = [segment.network for segment in planned.converted.values()]
    layers = [layer.kind for network in networks for layer in network.layers]
    refused = {f"{r.op}: {r.reason}": r.where for r in planned.plan.refusals}
    return {
        "tensorrt": kinds.count("tensorrt"),
        "torch": kinds.count("torch"),
        "layers": sum(kind != "constant" for kind in layers),
        "constants": sum(len(network.constants) for network in networks),
        "refused": [f"{what} at {place}" for what, place in refused.items()],
        "passes": {name: count for name, count in lowered.effects.items() if count},
    }


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ if isinstance(error, CaptureError) else None
    return (lines[0] if lines else repr(cause or error))[:400]


if __name__ == "__main__":
    main()
