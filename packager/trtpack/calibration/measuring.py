# SPDX-License-Identifier: Apache-2.0
"""Measures the values that are to be quantized, on calibration samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import fx

from ..errors import CalibrationError
from ..node_places import module_path, where
from ..precision.running import Elsewhere, run_graph
from ..spelling import first_of
from .histogram import Histogram
from .request import Sample

_CPU = torch.device("cpu")
_LOG = logging.getLogger("trtpack.calibration")
_MOST_NAMED = 3


def measure(
    module: fx.GraphModule,
    samples: Iterable[Sample],
    values: Iterable[fx.Node],
    device: torch.device = _CPU,
) -> tuple[dict[str, Histogram], int]:
    """The histogram of each value by name, and how many samples there were.

    The samples may lie anywhere, the graph runs on ``device``. Values that are one number in all of
    them are warned of: their range is hardly that of real data.

    Raises:
        CalibrationError: there is no sample, a value has numbers that are not finite, or the device
            has too little memory.
    """
    wanted = {value.name: value for value in values}
    found = {name: Histogram() for name in wanted}

    def watch(node: fx.Node, value: object) -> object:
        if node.name in wanted and isinstance(value, torch.Tensor):
            _add(found[node.name], node, value, count)
        return value

    count, there = 0, Elsewhere(device)
    for sample in samples:
        for name, value in sample.items():
            if name in wanted:
                _add(found[name], wanted[name], value, count)
        try:
            run_graph(module, sample, watch, elsewhere=there)
        except torch.cuda.OutOfMemoryError as error:
            raise CalibrationError(
                f"calibration sample {count} is too large for the GPU's memory",
                hint="give smaller batches, or calibrate on the CPU",
            ) from error
        count += 1
    if not count:
        raise CalibrationError(
            "there is no calibration sample", hint="let what --calibrate names give at least one"
        )
    _warn(found, wanted)
    return found, count


def _warn(found: Mapping[str, Histogram], nodes: Mapping[str, fx.Node]) -> None:
    zeros = [nodes[name] for name, seen in found.items() if seen.constant == 0]
    others = [nodes[name] for name, seen in found.items() if seen.constant]
    if zeros:
        _LOG.warning("calibration saw only zeros at %s: not quantized there", _named(zeros))
    if others:
        _LOG.warning("calibration saw only one number at %s: is the data real?", _named(others))


def _named(nodes: Iterable[fx.Node]) -> str:
    names = list(dict.fromkeys(module_path(node) or node.name for node in nodes))
    return first_of(names, _MOST_NAMED)


def _add(histogram: Histogram, node: fx.Node, value: torch.Tensor, sample: int) -> None:
    histogram.add(value)
    if histogram.bad:
        at = where(node) if node.op == "call_function" else ""
        raise CalibrationError(
            f"calibration sample {sample} makes {node.name}{f' at {at}' if at else ''} "
            "a number that is not finite",
            hint="take the sample out, or pin the operator: --pin 'NAME=fp32'",
        )
