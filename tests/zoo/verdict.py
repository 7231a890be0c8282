# SPDX-License-Identifier: Apache-2.0
"""Judges what was found of a model, and of all of them together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]
Results = Mapping[str, Found]

MODES = ("static", "dynamic", "float16")
MAX_REL_L2, MIN_COSINE = 1e-3, 0.999
MIN_STATIC_WHOLE, MIN_DYNAMIC_WHOLE = 0.97, 0.95

FIELD_LAYERS = {
    "BERT_pytorch": 606,
    "resnet18": 74,
    "resnet50": 180,
    "mobilenet_v2": 402,
    "timm_vision_transformer": 838,
    "swin_t": 1628,
    "lstm_net": 3641,
}
"""Layers, constants included, that today's best converter library needs for the same models; for
lstm_net, whose like is TorchBench's tts_angular, with its recurrence unrolled."""


@dataclass(frozen=True)
class Bar:
    """A demand, what was found, and whether it holds."""

    text: str
    found: str
    holds: bool


def of_mode(results: Results, mode: str) -> dict[str, Found]:
    """The models of one mode: name -> what was found."""
    pairs = ((key.rpartition("/"), found) for key, found in results.items())
    return {name: found for (name, _, kind), found in pairs if kind == mode}


def tried(found: Found) -> bool:
    """Whether the model can be exported in this mode at all, and was asked to."""
    return not (found.get("not_exportable") or found.get("not_asked"))


def is_whole(found: Found) -> bool:
    """Whether one TensorRT segment computes the model, with nothing in PyTorch."""
    return found.get("tensorrt") == 1 and found.get("torch") == 0


def wrong(found: Found, mode: str) -> str | None:
    """What of the numbers does not hold, or None; they must be known."""
    if "rel_l2" not in found:
        return "not evaluated"
    if mode == "float16":
        least = min(MIN_COSINE, 1 - 2 * (1 - found.get("own_cosine", 1.0)))
        if found["cosine"] < least:
            return f"cosine {found['cosine']:.5f}, at least {least:.5f} is wanted"
        return None
    if found["rel_l2"] > MAX_REL_L2:
        return f"relative L2 error {found['rel_l2']:.2g}, at most {MAX_REL_L2:g} is allowed"
    if found["differing"] > 0:
        return f"{found['differing']:.2%} of an integer output differ"
    return None


def verdict(found: Found, mode: str) -> str:
    """``ok``, or what is the matter in a few words."""
    if not tried(found):
        return "not exportable" if found.get("not_exportable") else "no batch"
    if "error" in found:
        return f"failed: {found['error']}"
    problem = wrong(found, mode)
    if problem:
        return f"wrong: {problem}"
    if not is_whole(found):
        return f"in parts: {'; '.join(found['refused']) or 'PyTorch segments'}"
    return "ok"


def was_built(found: Found) -> bool:
    """Whether everything that was converted became an engine."""
    return "engine_mb" in found and "error" not in found


def layers_per_operator(results: Results) -> float:
    """The median over the models that are one engine, static shapes."""
    ratios = [
        found["layers"] / found["operators"]
        for found in of_mode(results, "static").values()
        if tried(found) and is_whole(found) and found["operators"]
    ]
    return statistics.median(ratios) if ratios else float("nan")


def conversion(results: Results) -> tuple[float, float, float]:
    """Seconds over all models: export, decompose, and lower + partition + convert."""
    seconds = [
        found["seconds"]
        for found in of_mode(results, "static").values()
        if "convert" in found["seconds"]
    ]
    return (
        sum(s["export"] for s in seconds),
        sum(s["decompose"] for s in seconds),
        sum(s["lower"] + s["convert"] for s in seconds),
    )


def bars(results: Results) -> list[Bar]:
    """Every demand on the results."""
    found = []
    for mode, share in (
        ("static", MIN_STATIC_WHOLE),
        ("dynamic", MIN_DYNAMIC_WHOLE),
        ("float16", None),
    ):
        models = {n: f for n, f in of_mode(results, mode).items() if tried(f)}
        if not models:
            continue
        built = sum(was_built(f) for f in models.values())
        whole = sum(is_whole(f) and was_built(f) for f in models.values())
        right = sum(wrong(f, mode) is None for f in models.values())
        total = len(models)
        found.append(Bar(f"{mode}: converted and built", f"{built} of {total}", built == total))
        if share is not None:
            found.append(
                Bar(
                    f"{mode}: one TensorRT segment, at least {share:.0%}",
                    f"{whole} of {total} ({whole / total:.1%})",
                    whole >= share * total,
                )
            )
        figure = (
            f"cosine with eager float32 >= {MIN_COSINE}, or within twice eager float16's distance"
            if mode == "float16"
            else f"relative L2 error <= {MAX_REL_L2:g}"
        )
        found.append(Bar(f"{mode}: {figure}", f"{right} of {total}", right == total))
    static = of_mode(results, "static")
    for name, most in FIELD_LAYERS.items():
        if "defined" in static.get(name, {}):
            layers = static[name]["defined"]
            found.append(Bar(f"{name}: fewer than {most} layers", str(layers), layers < most))
    export, _, ours = conversion(results)
    if export:
        found.append(
            Bar(
                "lower + partition + convert take no longer than torch.export",
                f"{ours:.0f} s beside {export:.0f} s",
                ours <= export,
            )
        )
    return found
