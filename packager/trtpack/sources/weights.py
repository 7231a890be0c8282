# SPDX-License-Identifier: Apache-2.0
"""Loads ``--weights`` into a module, without ever running code from the file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SourceError

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")

_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SAVE = "save it with torch.save(module.state_dict(), path), best as .safetensors"
_SHOWN = 4


def load_weights(module: nn.Module, path: Path) -> list[str]:
    """Replaces the parameters and buffers of ``module``; answers notes on what was adapted.

    ``.safetensors`` files are mapped, not read: the parameters are views of the file.

    Raises:
        SourceError: an unreadable file, missing or unexpected names, a shape that differs.
    """
    tensors, notes = read_weights(path)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    expected = set(module.state_dict())
    tensors, prefix = _without_prefix(tensors, expected)
    if prefix:
        notes.append(f"{path.name}: names read without their prefix {prefix!r}")
    missing = [n for n in _missing(module, tensors) if not n.endswith("num_batches_tracked")]
    unexpected = sorted(set(tensors) - expected)
    if missing or unexpected:
        raise SourceError(
            f"{path} does not fit the model: " + "; ".join(_listed(missing, unexpected)),
            hint="use the weights of this architecture, or change the factory's arguments",
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise SourceError(
                f"{path}: {name} has the shape {_shape(tensor)}, the model wants "
                f"{_shape(own[name])}",
                hint="use the weights of this architecture, or change the factory's arguments",
            )
    module.load_state_dict(_assignable(module, tensors), strict=False, assign=True)
    return notes


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Every tensor of a weights file by name, and notes on how it was read.

    Raises:
        SourceError: no such file, another format, a broken file, or one with more than tensors.
    """
    if not path.exists():
        raise SourceError(f"there is no weights file {path}", hint="check the path after --weights")
    if path.suffix == ".safetensors":
        return read_safetensors(path), []
    if path.suffix not in WEIGHT_SUFFIXES:
        raise SourceError(
            f"cannot read weights from {path}",
            hint=f"save them as one of {', '.join(WEIGHT_SUFFIXES)}",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # it names no class or function
            raise SourceError(f"cannot read {path}: not a checkpoint", hint=_SAVE) from error
        raise SourceError(
            f"{path} holds more than tensors, and nothing else is loaded from a file",
            hint="save module.state_dict() alone, best as .safetensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"cannot read {path}: {reason}", hint=_SAVE) from error
    return _state_dict(content, path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, as views of the mapped file where possible."""
    from trtpack_runtime.safetensors import open_safetensors

    return {name: view.tensor() for name, view in open_safetensors(path).items()}


def _state_dict(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    if isinstance(content, Mapping) and not _is_state_dict(content):
        for key in _WRAPPERS:
            if key in content and _is_state_dict(content[key]):
                return dict(content[key]), [f"{path.name}: weights read from its entry {key!r}"]
    if not _is_state_dict(content):
        raise SourceError(
            f"{path} holds no state dict, but {_described(content)}",
            hint="save module.state_dict()",
        )
    return dict(content), []


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(str(k) for k in list(content)[:_SHOWN])
        return f"a dict of {keys or 'nothing'}"
    return f"a {type(content).__name__}"


def _without_prefix(
    tensors: dict[str, Tensor], expected: set[str]
) -> tuple[dict[str, Tensor], str]:
    """``tensors`` with a wrapper's prefix (``module.`` of DataParallel) removed where that fits."""
    if expected & set(tensors):
        return tensors, ""
    for prefix in _PREFIXES:
        shorter = {n.removeprefix(prefix): t for n, t in tensors.items()}
        if all(n.startswith(prefix) for n in tensors) and expected & set(shorter):
            return shorter, prefix
    return tensors, ""


def _assignable(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What to assign to each name: one object for parameters that are one in the module.

    A view of the file stays one where the type fits; other tensors are converted.
    """
    made: dict[int, Tensor] = {}
    state = module.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        old = state[name]
        if id(old) not in made:
            new = tensor.detach().to(old.dtype)
            parameter = isinstance(old, nn.Parameter)
            made[id(old)] = nn.Parameter(new, requires_grad=False) if parameter else new
    return {n: made[id(old)] for n, old in state.items() if id(old) in made}


def _missing(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names without a tensor, but for those that share their memory with one that has it."""
    state = module.state_dict(keep_vars=True)
    loaded = {id(state[n]) for n in tensors if n in state}
    return [n for n, t in state.items() if n not in tensors and id(t) not in loaded]


def _listed(missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})")
    return parts


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
