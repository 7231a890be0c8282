# SPDX-License-Identifier: Apache-2.0
"""``hf:DIR``: a local folder of transformers with ``config.json``, maybe with weights."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..options import InputSpec
from ..spelling import nearest
from .loaded import Loaded
from .torchvision_ops import import_torchvision

_TOKENS = 128  # the length of example text, where the model allows it


def load_transformers(folder: Path, dtype: str | None) -> Loaded:
    """Builds the architecture that ``config.json`` names; loads the folder's weights if it has any.

    Nothing is downloaded and no code from the folder runs. The cache of past keys is off.

    Raises:
        SourceError: transformers is not installed, no usable ``config.json``, weights that do not
            fit or are pickled.
    """
    config_path = folder / "config.json"
    if not folder.is_dir():
        raise SourceError(
            f"there is no folder {folder}",
            hint="download the model first, then give its local folder as hf:DIR",
        )
    if not config_path.is_file():
        raise SourceError(f"{folder} has no config.json", hint="give the model's own folder")
    try:
        content = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"cannot read {config_path}: {error}", hint="download the folder again"
        ) from error
    if importlib.util.find_spec("transformers") is None:
        raise SourceError(
            "transformers is not installed", hint="install it: pip install transformers"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # transformers imports it where it is
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = _model_class(transformers, content, folder)
    module, random = _build(transformers, kind, folder, dtype)
    module.config.use_cache = False
    notes = (f"{folder.name}: no weights in the folder, so they are random",) if random else ()
    metadata = _metadata(folder, module.config)
    return Loaded(
        folder.resolve().name,
        module,
        inputs=_inputs(module),
        metadata=metadata,
        notes=notes,
        random=random,
    )


def _model_class(transformers: Any, content: Any, folder: Path) -> Any:
    if not isinstance(content, dict) or "model_type" not in content:
        raise SourceError(
            f"{folder / 'config.json'} has no model_type", hint="give a folder of transformers"
        )
    architectures = content.get("architectures") or []
    if not architectures:
        return transformers.AutoModel
    name = architectures[0]
    found = getattr(transformers, name, None)
    if found is None:
        near = nearest(name, dir(transformers))
        own = " with its own code, which is not run" if content.get("auto_map") else ""
        raise SourceError(
            f"transformers {transformers.__version__} has no architecture {name}{own}",
            hint=f"did you mean {near} in config.json?"
            if near and not own
            else "update transformers, or write a factory: file.py:factory",
        )
    return found


def _build(transformers: Any, kind: Any, folder: Path, dtype: str | None) -> tuple[Any, bool]:
    """The module, and whether its weights are random."""
    stored = list(folder.glob("*.safetensors"))
    if not stored and any(folder.glob("*.bin")):
        raise SourceError(
            f"{folder} has only pickled weights (.bin)",
            hint="convert them to model.safetensors, or give one file with --weights",
        )
    try:
        if stored:
            module = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype or "auto"
            )
            return module, False
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if kind is transformers.AutoModel:
            return kind.from_config(config), True
        return kind(config), True
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(
            f"transformers cannot build {folder}: {type(error).__name__}: {reason}",
            hint="check config.json and the weights beside it",
        ) from error


def _metadata(folder: Path, config: Any) -> dict[str, Any]:
    """Labels that are more than LABEL_0, and the image preprocessing the folder describes."""
    found: dict[str, Any] = {}
    labels = [str(name) for _, name in sorted((getattr(config, "id2label", None) or {}).items())]
    if labels and not all(name.startswith("LABEL_") for name in labels):
        found["labels"] = labels
    path = folder / "preprocessor_config.json"
    try:
        image = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError):
        image = {}
    if "image_mean" in image and "image_std" in image:
        size = image.get("crop_size") or image.get("size") or {}
        if isinstance(size, int):
            size = {"height": size, "width": size}
        side = size.get("shortest_edge")
        height, width = size.get("height", side), size.get("width", side)
        if height and width:
            resize = image.get("size")
            found["preprocess"] = {
                "resize": resize.get("shortest_edge", [height, width])
                if isinstance(resize, dict)
                else [height, width],
                "crop": [height, width],
                "scale": image.get("rescale_factor", 1 / 255),
                "mean": image["image_mean"],
                "std": image["image_std"],
                "layout": "NCHW",
            }
    return found


def _inputs(module: Any) -> tuple[InputSpec, ...]:
    """Example inputs for the parameters of ``forward`` that the architecture needs."""
    config = module.config
    parameters = inspect.signature(module.forward).parameters
    text = getattr(config, "text_config", None) or config
    vision = getattr(config, "vision_config", None) or config
    makers: dict[str, Callable[[], InputSpec | None]] = {
        "input_ids": lambda: _tokens("input_ids", text),
        "pixel_values": lambda: _pixels(vision),
        "input_features": lambda: _features(config),
        "input_values": lambda: InputSpec("input_values", (1, 16000)),
    }
    main = getattr(module, "main_input_name", "input_ids")
    wanted = [main]
    if getattr(config, "text_config", None) and getattr(config, "vision_config", None):
        wanted = ["input_ids", "pixel_values"]
    found = [spec for name in wanted if name in makers and (spec := makers[name]())]
    if any(s.name == "input_ids" for s in found) and "attention_mask" in parameters:
        ids = next(s for s in found if s.name == "input_ids")
        found.append(InputSpec("attention_mask", ids.shape, "int64", 1, 2))
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        found.append(InputSpec("decoder_input_ids", (1, 16), "int64", 0, _vocabulary(text)))
    return tuple(s for s in found if s.name in parameters)


def _tokens(name: str, config: Any) -> InputSpec:
    names = ("max_position_embeddings", "n_positions")
    longest = next((v for n in names if (v := getattr(config, n, None))), None)
    padding = 2 if getattr(config, "model_type", "") in ("roberta", "xlm-roberta") else 0
    length = min(_TOKENS, int(longest) - padding) if longest else _TOKENS
    return InputSpec(name, (1, length), "int64", 0, _vocabulary(config))


def _vocabulary(config: Any) -> int:
    return int(getattr(config, "vocab_size", None) or 1000)


def _pixels(config: Any) -> InputSpec:
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    channels = int(getattr(config, "num_channels", None) or 3)
    return InputSpec("pixel_values", (1, channels, int(height), int(width)))


def _features(config: Any) -> InputSpec:
    mels = int(getattr(config, "num_mel_bins", None) or 80)
    frames = 2 * int(getattr(config, "max_source_positions", None) or 1500)
    return InputSpec("input_features", (1, mels, frames))
