# SPDX-License-Identifier: Apache-2.0
"""The converter tests' cases as trials: what eager PyTorch answers is what an engine must."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch

from tests.proving.collecting import Row, collect
from tests.proving.proof import Result
from tests.proving.trial import Sample, Trial, by_data
from tests.runtime.layer_cases import TOLERANCE
from trtpack.convert import ConversionError, ConvertedSegment, convert
from trtpack.target import Target, find_target
from trtpack_runtime.network import Network

T = torch.Tensor
_INT32 = torch.iinfo(torch.int32)


def converter_trials(
    target: Target, subjects: Collection[str] = ()
) -> tuple[list[Trial], dict[str, Result]]:
    """Every case, as written and with float16 in place of float32; and results of the others.

    ``subjects`` are the only test modules wanted, where given.
    """
    from tests.packager.converters import harness

    trials: list[Trial] = []
    unreadable: dict[str, str] = {}
    others: dict[str, Result] = {}
    seen: Counter[str] = Counter()
    for subject, case, dtype in _variants(harness, collect(unreadable, subjects)):
        name = f"{subject}: {case} {dtype}"
        seen[name] += 1
        name += f" #{seen[name]}" * (seen[name] > 1)
        try:
            trials.append(_trial(harness, case, name, subject, dtype, target))
        except _NoTrial as error:
            others[name] = _other("skipped", subject, dtype, str(error))
        except Exception as error:  # of whatever kind: it is this case's, not the run's
            others[name] = _other("failed", subject, dtype, f"{type(error).__name__}: {error}")
    for subject, why in unreadable.items():
        others[subject] = _other("failed", subject, "", why)
    return trials, others


class _NoTrial(Exception):
    """Why a case is not tried."""


def _other(state: str, subject: str, dtype: str, why: str) -> Result:
    return {"state": state, "subject": subject, "dtype": dtype, "digest": "", "why": why}


def _trial(harness: Any, case: Any, name: str, subject: str, dtype: str, target: Target) -> Trial:
    module, ranges = harness.graph_of(case)
    if why := harness.refused_beforehand(module, target):
        raise _NoTrial(why)
    try:
        segment = convert(module, target, ranges)
    except ConversionError as error:
        raise _NoTrial(error.refusal.reason) from error
    if not segment.network.outputs:
        raise _NoTrial("no layer is left of it")
    sizes = (harness.MIN, harness.OPT, harness.MAX) if ranges else (harness.OPT,)
    samples = tuple(_sample(case, module, segment, which) for which in sizes)
    if not target.tensorrt_at_least("10.0") and any(map(_is_long, samples)):
        raise _NoTrial("has integers beyond 32 bits, TensorRT 8 has none such")
    group = f"{'dynamic' if ranges else 'static'} {_family(segment.network)}"
    group += by_data(segment.network)
    group += " with unread inputs" * _has_unread_inputs(segment.network)
    constants = {c.data: segment.constants[c.data] for c in segment.network.constants.values()}
    return Trial(name, subject, dtype, group, segment.network, constants, samples, TOLERANCE)


def target_of(module: str, version: str) -> Target:
    """A target with this TensorRT; which GPU it is makes no difference to these networks."""
    if module == "tensorrt_rtx":
        return find_target("rtx-4090")
    release = tuple(int(part) for part in version.split(".")[:2])
    return dataclasses.replace(
        find_target("h200-sxm"), engine_kind="tensorrt", tensorrt=release, rtx_capability=None
    )


def _variants(harness: Any, rows: Iterable[Row]) -> Iterator[tuple[str, Any, str]]:
    for subject, case in rows:
        yield subject, case, "as written"
        if case.half and any(i.dtype == torch.float32 for i in case.inputs()):
            yield subject, case.in_type(torch.float16), "in float16"


def _sample(
    case: Any, module: torch.fx.GraphModule, segment: ConvertedSegment, which: int
) -> Sample:
    tensors = case.samples(which)
    values = [v for v, i in zip(tensors, case.inputs(), strict=True) if not i.constant]
    nodes = module.graph.find_nodes(op="placeholder")
    inputs = {node.name: value for node, value in zip(nodes, values, strict=True)}
    answers: dict[str, T] = {}
    if case.has_values:
        pairs = zip(segment.outputs, case.call(tensors), strict=True)
        answers = {output: value for output, value in pairs if isinstance(output, str)}
    if any(value.is_floating_point() and value.isnan().any() for value in values):
        # TensorRT promises nothing of NaN, so no place that was found by comparing with one
        answers = {name: value for name, value in answers.items() if value.dtype != torch.int64}
    return Sample(inputs, [answers.get(name) for name in segment.network.outputs])


def _family(network: Network) -> str:
    types = {t.dtype for t in (*network.inputs, *network.tensors.values())}
    return next((name for name in ("BF16", "HALF", "FLOAT") if name in types), "whole")


def _has_unread_inputs(network: Network) -> bool:
    """Whether the values of an input do not matter; a TensorRT may leave such ones out."""
    read = {name for layer in network.layers for name in layer.operand_names()}
    return not {tensor.name for tensor in network.inputs} <= read


def _is_long(sample: Sample) -> bool:
    """Whether a sample has integers beyond 32 bits."""
    return any(
        bool(((t < _INT32.min) | (t > _INT32.max)).any())
        for t in (*sample.inputs.values(), *sample.answers)
        if t is not None and t.dtype == torch.int64
    )
