# SPDX-License-Identifier: Apache-2.0
"""A TensorRT engine as text: its layers with tactics, formats and the modules they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trtpack_runtime.cli.text import clean, columns, plural, shape, size, wrapped
from trtpack_runtime.segments import FoundSegment

from ..engine_layers import EngineLayer, InspectedEngine
from ..origins import Origin

_LONGEST_NAME, _LONGEST_TACTIC = 48, 56


def inspected(found: FoundSegment, engine: InspectedEngine) -> Iterator[str]:
    """The whole report of ``trtpack inspect --engine``."""
    title = "TensorRT-RTX" if found.kind == "tensorrt-rtx" else "TensorRT"
    yield f"{clean(str(found))}  ({title} {engine.version}, {size(engine.nbytes)})"
    figures = engine.figures
    memory = figures.get("device_memory_bytes")
    rows = [
        ("layers", _counts(found, engine)),
        ("memory", "unknown" if memory is None else f"{size(memory)} of scratch on the GPU"),
        ("profiles", str(figures.get("profiles", 1))),
        ("weights", "refittable" if figures.get("refittable") else "fixed"),
    ]
    yield columns(rows)
    yield "\ninputs and outputs"
    yield columns(
        (t["mode"], t["name"], t["dtype"].lower(), shape(t["shape"]), t["format"])
        for t in engine.tensors
    )
    yield "\nlayers"
    if engine.detailed:
        header = ("", "type", "layer", "output", "tactic", "from")
        yield columns([header, *(_row(i, layer) for i, layer in enumerate(engine.layers))])
    else:
        yield columns(
            (str(i), brief(layer.name, _LONGEST_NAME), origins_text(layer.origins))
            for i, layer in enumerate(engine.layers)
        )
        yield "\n" + wrapped(
            "Only names are known: the engine was built without details. --detailed builds it "
            "again with them, to show tactics and formats."
        )


def brief(text: str, most: int) -> str:
    """A name with its middle left out where it is long."""
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[-half:]}"


def origins_text(origins: Sequence[Origin]) -> str:
    """``layer1.0.conv1, layer1.0.relu (resnet.py:92)``: every module once, lines of one file."""
    if not origins:
        return ""
    modules = list(dict.fromkeys(origin.module for origin in origins if origin.module))
    sources = list(dict.fromkeys(origin.source for origin in origins if origin.source))
    shown = modules if len(modules) <= 3 else [modules[0], "...", modules[-1]]
    lines = sources if len(sources) <= 2 else [sources[0], "...", sources[-1]]
    return f"{', '.join(shown)} ({', '.join(lines)})".strip() if lines else ", ".join(shown)


def _counts(found: FoundSegment, engine: InspectedEngine) -> str:
    own = sum(not layer.origins for layer in engine.layers)
    text = f"{len(engine.layers)}"
    if found.network is not None:
        text += f", of {plural(len(found.network.layers), 'layer')} of the network"
    return text + (f"; {own} of TensorRT's own" if own else "")


def _row(index: int, layer: EngineLayer) -> tuple[str, ...]:
    output = layer.outputs[0] if layer.outputs else None
    made = "" if output is None else f"{shape(output.shape)} {output.format}"
    return (
        str(index),
        layer.kind,
        brief(layer.name, _LONGEST_NAME),
        made,
        brief(layer.tactic, _LONGEST_TACTIC),
        origins_text(layer.origins),
    )
