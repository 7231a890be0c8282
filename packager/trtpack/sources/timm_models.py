# SPDX-License-Identifier: Apache-2.0
"""``timm:NAME``: an architecture of timm, with the preprocessing its weights want."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from ..errors import SourceError
from ..options import InputSpec
from ..spelling import nearest
from .loaded import Loaded
from .torchvision_ops import import_torchvision


def load_timm(name: str) -> Loaded:
    """Builds ``timm.create_model(NAME)`` with random weights (nothing is downloaded).

    Raises:
        SourceError: timm is not installed, or has no such model.
    """
    if importlib.util.find_spec("timm") is None:
        raise SourceError("timm is not installed", hint="install it: pip install timm")
    import_torchvision()  # timm imports it
    import timm

    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise SourceError(
            f"timm has no model {name!r}",
            hint=f"did you mean timm:{near}?" if near else "see timm.list_models()",
        )
    module = timm.create_model(name, pretrained=False)
    config = timm.data.resolve_data_config({}, model=module)
    shape = (1, *map(int, config["input_size"]))
    return Loaded(
        name.partition(".")[0],
        module,
        inputs=(InputSpec(None, shape),),
        metadata={"preprocess": _preprocess(config)},
        notes=(f"{name}: random weights; give trained ones with --weights",),
        random=True,
    )


def _preprocess(config: Mapping[str, Any]) -> dict[str, Any]:
    height, width = config["input_size"][1:]
    known = config["interpolation"] in ("bilinear", "bicubic", "nearest", "lanczos")
    return {
        "resize": math.floor(min(height, width) / config["crop_pct"]),
        "crop": [int(height), int(width)],
        "interpolation": config["interpolation"] if known else "bicubic",
        "scale": 1 / 255,
        "mean": [float(v) for v in config["mean"]],
        "std": [float(v) for v in config["std"]],
        "layout": "NCHW",
    }
