# SPDX-License-Identifier: Apache-2.0
"""Measures the values that are to be quantized, on calibration samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from ..errors import CalibrationError
from ..node_places import where
from ..precision.running import Elsewhere, run_graph
from .histogram import Histogram
from .request import Sample

_CPU = torch.device("cpu")


def measure(
    module: fx.GraphModule,
    samples: Iterable[Sample],
    values: Iterable[fx.Node],
    device: torch.device = _CPU,
) -> tuple[dict[str, Histogram], int]:
    """The histogram of each value by name, and how many samples there were.

    The samples may lie anywhere, the graph runs on ``device``.

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
    return found, count


def _add(histogram: Histogram, node: fx.Node, value: torch.Tensor, sample: int) -> None:
    histogram.add(value)
    if histogram.bad:
        at = where(node) if node.op == "call_function" else ""
        raise CalibrationError(
            f"calibration sample {sample} makes {node.name}{f' at {at}' if at else ''} "
            "a number that is not finite",
            hint="take the sample out, or pin the operator: --pin 'NAME=fp32'",
        )
