# SPDX-License-Identifier: Apache-2.0
"""What a user asks of a partition, checked: contradictions, patterns, and what no model has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import fx

from .branches import every_branch
from .errors import ConfigError, UnsupportedOpError
from .lowering import Lowered
from .node_places import module_path
from .options import Options
from .partition import Plan, within_module
from .spelling import nearest
from .target import Target


def check_partition(options: Options) -> None:
    """Refuses what cannot be meant together, and patterns that are none, before any work is done.

    Raises:
        ConfigError: it names the flags.
    """
    for name in options.trt_ops:
        for other in options.torch_ops:
            if name == other or name.startswith(other + ".") or other.startswith(name + "."):
                raise ConfigError(
                    f"--trt-op {name} and --torch-op {other} contradict each other",
                    hint="leave one of them away",
                )
    given = {"--torch-op": options.torch_ops, "--torch-module": options.torch_modules}
    for flag in (flag for flag, values in given.items() if values):
        if options.require_full:
            raise ConfigError(
                f"--require-full and {flag} contradict each other", hint="leave one of them away"
            )
    if options.measure_partition and options.min_block_size is not None:
        raise ConfigError(
            "--measure-partition tries several ways to divide, --min-block-size wants one",
            hint="leave one of them away",
        )
    if options.measure_partition and options.dry_run:
        raise ConfigError(
            "--measure-partition builds engines, --dry-run builds none",
            hint="leave one of them away",
        )
    for pattern in options.torch_modules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"--torch-module '{pattern}' is no regular expression: {error}",
                hint=r"write a dot of a name as \., and a bracket as \[",
            ) from error


def check_places(methods: Sequence[Lowered], options: Options) -> None:
    """Refuses an operator or a module to place that no method of the model has, a misspelling
    mostly.

    Raises:
        ConfigError: with the nearest that it has.
    """
    nodes = [node for one in methods for node in _nodes(one.captured.graph_module)]
    found = {str(node.target) for node in nodes}
    known = sorted(found | {name.rpartition(".")[0] for name in found} - {""})
    for flag, names, where in (
        ("--torch-op", options.torch_ops, "to keep in PyTorch"),
        ("--trt-op", options.trt_ops, "to run on engines"),
    ):
        for name in names:
            if name not in known:
                near = nearest(name, known)
                raise ConfigError(
                    f"the lowered model has no operator {name} {where}",
                    hint=f"did you mean {flag} {near}?"
                    if near
                    else "choose one of those that trtpack explain lists",
                )
    paths = sorted({path for node in nodes for path in _around(module_path(node))})
    for pattern in options.torch_modules:
        if not any(within_module(re.compile(pattern), path) for path in paths):
            near = nearest(pattern, paths)
            raise ConfigError(
                f"--torch-module '{pattern}' matches no module that computes",
                hint=f"did you mean --torch-module {near}?"
                if near
                else "trtpack explain -v tells where operators are",
            )


def check_whole(plan: Plan, target: Target) -> None:
    """Refuses a plan that is not one engine, for ``--require-full``.

    Raises:
        UnsupportedOpError: the first operator that is not in it.
    """
    engines = [s for s in plan.segments if s.kind == "tensorrt" or target.engine_kind == "inductor"]
    if len(engines) == len(plan.segments) <= 1:
        return
    first = plan.refusals[0]
    raise UnsupportedOpError(first.op, first.where, first.reason, "--require-full")


def check_wanted(plan: Plan, options: Options) -> None:
    """Refuses a plan in which an operator of ``--trt-op`` is not on an engine.

    Raises:
        UnsupportedOpError: the operator, and why.
    """
    for refusal in plan.refusals:
        if any(refusal.op == o or refusal.op.startswith(o + ".") for o in options.trt_ops):
            raise UnsupportedOpError(
                refusal.op, refusal.where, refusal.reason, f"--trt-op {refusal.op}"
            )


def _nodes(module: fx.GraphModule) -> Iterable[fx.Node]:
    for one in (module, *every_branch(module)):
        yield from (node for node in one.graph.nodes if node.op == "call_function")


def _around(path: str) -> list[str]:
    """A module's path and those of the modules around it."""
    parts = path.split(".") if path else []
    return [".".join(parts[: n + 1]) for n in range(len(parts))]
