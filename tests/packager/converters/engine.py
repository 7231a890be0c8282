# SPDX-License-Identifier: Apache-2.0
"""Builds a converted segment with the real TensorRT-RTX, for SM 8.9, without a GPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from trtpack.convert import ConvertedSegment
from trtpack.weights import raw_bytes
from trtpack_runtime.engines._emit import Emitted, emit


class Built(NamedTuple):
    """An engine's size, and the layers it was defined by, constants and shape tensors included."""

    nbytes: int
    layers: int


def build(segment: ConvertedSegment) -> Built:
    """Builds the engine; an AssertionError carries TensorRT's log.

    A segment without layers, whose outputs are inputs or constants, needs no engine.
    """
    if not segment.network.outputs:
        return Built(0, 0)
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    weights = {name: raw_bytes(value) for name, value in segment.constants.items()}
    emitted = emit(trt, segment.network, weights)
    before = len(emitted.log.errors)
    plan = emitted.builder.build_serialized_network(emitted.definition, _config(emitted, segment))
    assert plan is not None, emitted.log.tail()
    assert emitted.log.errors[before:] == []
    return Built(int(plan.nbytes), int(emitted.definition.num_layers))


def _config(emitted: Emitted, segment: ConvertedSegment) -> Any:
    trt, builder = emitted.trt, emitted.builder
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    for profile in segment.network.profiles:
        added = builder.create_optimization_profile()
        for name, (low, usual, high) in profile.shapes.items():
            added.set_shape(name, low, usual, high)
        config.add_optimization_profile(added)
    return config
