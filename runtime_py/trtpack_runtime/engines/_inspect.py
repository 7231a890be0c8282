# SPDX-License-Identifier: Apache-2.0
"""What TensorRT tells of an engine, read by its ``IEngineInspector`` in a child process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ._load import deserialized

PLAN = "plan"
"""The engine's file in the job's folder."""


def run(
    trt: Any, job: Mapping[str, Any], folder: Path, report: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """The worker's task ``inspect``; ``job["record"]`` is the engine's compatibility record,
    ``job["trust"]`` lets machine code inside it run.

    Answers ``layers``, as the inspector gives them: objects where the engine was built with
    details, else names; ``tensors``, the engine's inputs and outputs; and ``engine``, its figures.

    Raises:
        BundleError: TensorRT cannot read the plan, or it is not trusted.
        DeviceError: there is no GPU that this TensorRT can use.
    """
    plan = memoryview((folder / PLAN).read_bytes())
    kept = deserialized(trt, plan, job.get("record"), trust=bool(job.get("trust")))
    engine = kept[1]
    layers = _layers(trt, engine)
    return {"layers": layers, "tensors": _tensors(engine), "engine": _figures(engine)}


def _layers(trt: Any, engine: Any) -> list[Any]:
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers: list[Any] = read_information(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        oneline = trt.LayerInformationFormat.ONELINE
        return [
            str(inspector.get_layer_information(index, oneline)).strip()
            for index in range(engine.num_layers)
        ]
    return layers


_TEXT = re.compile(r'^(.*?": ")(.*)("[,}\]]*)$', re.MULTILINE)
_BARE_QUOTE = re.compile(r'(?<!\\)"')


def read_information(text: str) -> Any:
    """The inspector's JSON, one text a line, where TensorRT escapes neither quotes nor the
    characters that part the metadata of fused layers (8.6).

    Raises:
        ValueError: it is something else.
    """
    try:
        return json.loads(text, strict=False)
    except ValueError:
        repaired = _TEXT.sub(lambda m: m[1] + _BARE_QUOTE.sub(r'\\"', m[2]) + m[3], text)
        return json.loads(repaired, strict=False)


def _tensors(engine: Any) -> list[dict[str, Any]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        {
            "name": name,
            "mode": engine.get_tensor_mode(name).name.lower(),
            "dtype": engine.get_tensor_dtype(name).name,
            "shape": list(engine.get_tensor_shape(name)),
            "format": str(engine.get_tensor_format_desc(name)),
        }
        for name in names
    ]


def _figures(engine: Any) -> dict[str, Any]:
    """Memory in bytes; None where this release does not tell."""
    memory = getattr(engine, "device_memory_size_v2", None)
    if memory is None:
        memory = getattr(engine, "device_memory_size", None)
    return {
        "layers": engine.num_layers,
        "device_memory_bytes": None if memory is None else int(memory),
        "profiles": engine.num_optimization_profiles,
        "refittable": bool(engine.refittable),
    }
