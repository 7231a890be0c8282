# SPDX-License-Identifier: Apache-2.0
"""``torchvision:NAME``: an architecture of torchvision, with the preprocessing its weights want."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import SourceError
from ..options import InputSpec
from ..spelling import nearest
from .loaded import Loaded
from .torchvision_ops import import_torchvision


def load_torchvision(name: str) -> Loaded:
    """Builds ``torchvision.models.NAME`` with random weights (nothing is downloaded).

    Raises:
        SourceError: torchvision is not installed, or has no such model.
    """
    models = import_torchvision().models
    known = models.list_models()
    if name not in known:
        near = nearest(name, known)
        raise SourceError(
            f"torchvision has no model {name!r}",
            hint=f"did you mean torchvision:{near}?"
            if near
            else "see torchvision.models.list_models()",
        )
    arguments: dict[str, Any] = {"weights": None}
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    if "weights_backbone" in parameters:
        arguments["weights_backbone"] = None
    if name in ("inception_v3", "googlenet"):
        arguments["init_weights"] = True
    module = models.get_model(name, **arguments)
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    size, preprocess = _preprocessing(weights)
    shape = _input_shape(models, name, size, module)
    return Loaded(
        name,
        module,
        inputs=(InputSpec(None, shape),),
        metadata={"preprocess": preprocess} if preprocess and len(shape) == 4 else {},
        notes=(f"{name}: random weights; give trained ones with --weights",),
        random=True,
    )


def _preprocessing(weights: Any) -> tuple[int, dict[str, Any]]:
    """The input size, and what an image goes through, as the default weights define it."""
    if weights is None:
        return 224, {}
    preset = weights.transforms()
    crop = getattr(preset, "crop_size", None)
    resize = getattr(preset, "resize_size", None)
    if not crop or not resize:
        return 520 if resize else 224, {}
    return int(crop[0]), {
        "resize": int(resize[0]),
        "crop": [int(crop[0]), int(crop[-1])],
        "interpolation": str(preset.interpolation.value),
        "scale": 1 / 255,
        "mean": [float(v) for v in preset.mean],
        "std": [float(v) for v in preset.std],
        "layout": "NCHW",
    }


def _input_shape(models: Any, name: str, size: int, module: Any) -> tuple[int, ...]:
    package = type(module).__module__.removeprefix("torchvision.models.").partition(".")[0]
    if package == "video":
        return (1, 3, 16, size, size)
    if package in ("detection", "optical_flow"):
        raise SourceError(
            f"torchvision:{name} takes more than one image tensor",
            hint="write a factory that returns (model, inputs): file.py:factory",
        )
    return (1, 3, size, size)
