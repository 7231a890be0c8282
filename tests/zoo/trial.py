# SPDX-License-Identifier: Apache-2.0
"""One model from export to engine, stage by stage, with what is found on the way."""

from __future__ import annotations

import copy
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tests.packager.converters.engine import build
from tests.zoo import MODELS
from tests.zoo.agreement import agreement, answers_of, own_cosine
from tests.zoo.batches import at_batch, batch_sizes
from tests.zoo.verdict import MODES
from trtpack.buffers import unchanged_buffers
from trtpack.capture import capture
from trtpack.golden import copied
from trtpack.livening import liven
from trtpack.lowering import Lowered, lower
from trtpack.options import Options
from trtpack.planning import Planned, plan
from trtpack.target import find_target

__all__ = ["MODES", "Settings", "trials"]

_NO_WORK = ("_assert", "sym_constrain", "sym_size")

Found = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Which target to convert for, whether to build engines, where what went wrong is written."""

    target: str = "rtx-4090"
    build: bool = True
    log: Path | None = None


def trials(
    name: str, modes: Sequence[str], settings: Settings
) -> Iterator[tuple[str, Found, bool]]:
    """(mode, what is known of it so far, whether that is all) after every stage.

    So a crash or a time limit loses only what came later.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, args, shapes = MODELS[name]()
    liven(model, args)
    for mode in modes:
        trial = _Trial(mode, model, args, shapes, settings)
        try:
            for _ in trial.stages():
                yield mode, trial.found, False
        except Exception as error:  # a model's failure is what a run is to find out
            trial.found["error"] = f"{trial.stage}: {type(error).__name__}: {_first_line(error)}"
            if settings.log:
                with settings.log.open("a") as log:
                    log.write(f"== {name} {mode}\n{traceback.format_exc()}\n")
        yield mode, trial.found, True


class _Trial:
    def __init__(
        self,
        mode: str,
        model: torch.nn.Module,
        args: tuple[Any, ...],
        shapes: tuple[Any, ...] | None,
        settings: Settings,
    ) -> None:
        self.mode, self.eager, self.args, self.shapes = mode, model, args, shapes
        self.settings, self.stage = settings, "export"
        self.found: Found = {"seconds": {}}

    def stages(self) -> Iterator[None]:
        """Does a stage at every step; ``found`` then holds what it told."""
        if self.mode == "dynamic" and self.shapes is None:
            self.found["not_asked"] = "its example has no batch that could vary"
            return
        model, args = self._typed()
        exported = self._exported(model, args)
        if exported is None:
            return
        if self.mode == "float16":
            self.found["own_cosine"] = own_cosine(model, self.eager, args)
        self.found["operators"] = operators(exported.graph)
        yield
        lowered, planned = self._converted(exported, args)
        self.found |= described(planned, lowered)
        yield
        with self._timed("evaluate"):
            self.found |= agreement(self.eager, lowered, planned, self._calls(args))
        yield
        if self.settings.build:
            with self._timed("build"):
                built = [build(segment) for segment in planned.converted.values()]
            self.found["engine_mb"] = round(sum(b.nbytes for b in built) / 1e6, 1)
            self.found["defined"] = sum(b.layers for b in built)

    def _typed(self) -> tuple[torch.nn.Module, tuple[Any, ...]]:
        if self.mode != "float16":
            return self.eager, self.args
        args = pytree.tree_map_only(torch.Tensor, _half, self.args)
        return copy.deepcopy(self.eager).half(), args

    def _exported(self, model: torch.nn.Module, args: tuple[Any, ...]) -> Any:
        shapes = self.shapes if self.mode == "dynamic" else None
        try:
            if self.mode == "float16":  # what is traced without numbers may not run with them
                with torch.no_grad():
                    answers_of(model, args)
            with torch.no_grad(), unchanged_buffers(model), self._timed("export"):
                return torch.export.export(
                    model, copied((args, {}))[0], dynamic_shapes=shapes, strict=False
                )
        except Exception as error:  # whatever torch.export and the model raise
            self.found["not_exportable"] = f"{type(error).__name__}: {_first_line(error)}"
            return None

    def _converted(self, exported: Any, args: tuple[Any, ...]) -> tuple[Lowered, Planned]:
        target = find_target(self.settings.target)
        with self._timed("decompose"):
            captured = capture(exported, args)
        with self._timed("lower"):
            lowered = lower(captured)
        with self._timed("convert"):
            planned = plan(lowered, target, Options((target.name,)))
        return lowered, planned

    def _calls(self, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self.mode != "dynamic" or self.shapes is None:
            return [args]
        sizes = batch_sizes(args, self.shapes)
        self.found["batches"] = sizes
        return [at_batch(args, self.shapes, size) for size in sizes]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        self.stage, start = stage, time.perf_counter()
        yield
        self.found["seconds"][stage] = round(time.perf_counter() - start, 2)


def operators(graph: torch.fx.Graph) -> int:
    """How many operators compute in a graph as exported: no sizes, asserts or unpacking."""
    return sum(
        not node.target.name().partition("::")[2].startswith(_NO_WORK)
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    )


def described(planned: Planned, lowered: Lowered) -> Mapping[str, Any]:
    """The plan in figures: segments of each kind, layers, what TensorRT refused."""
    kinds = [segment.kind for segment in planned.plan.segments]
    networks = [segment.network for segment in planned.converted.values()]
    refused = {f"{r.op}: {r.reason}": r.where for r in planned.plan.refusals}
    return {
        "tensorrt": kinds.count("tensorrt"),
        "torch": kinds.count("torch"),
        "layers": sum(1 for network in networks for _ in network.every_layer()),
        "refused": [f"{what} at {place}" for what, place in refused.items()],
        "passes": {name: count for name, count in lowered.effects.items() if count},
    }


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__
