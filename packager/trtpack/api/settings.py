# SPDX-License-Identifier: Apache-2.0
"""The settings of a build as Python gives them: ``Options``, or names and values.

A value may be what ``Options`` holds, or the text that the flag of that setting takes:
``pins=["head.*=fp32"]``, ``workspace_bytes="4G"``, ``dtype=torch.float16``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trtpack_runtime.atomic import check_writable

from ..errors import ConfigError
from ..options import InputArgument, Options
from ..spelling import nearest
from .setting_values import FIELDS, read_setting
from .torch_tensorrt import NAMES as THEIRS
from .torch_tensorrt import joined, translated


def settled(
    options: Options | Mapping[str, Any] | None,
    settings: Mapping[str, Any] | None = None,
    *,
    target: str | Sequence[str] | None = None,
    inputs: tuple[InputArgument, ...] = (),
    otherwise: str | None = None,
) -> Options:
    """All that was said of a build as one value.

    Args:
        options: as ``Options``, or by the names of its fields or of Torch-TensorRT's settings.
        settings: further ones, by name.
        target: the targets, in the place of ``options.targets``.
        inputs: in the place of ``options.inputs``.
        otherwise: the target where none is given.

    Raises:
        ConfigError: an unknown setting, with the nearest that there is; a value that it does not
            take; two settings that contradict each other; or no target.
    """
    if not isinstance(options, Options | Mapping | None):
        raise ConfigError(
            f"the options are {options!r}, wanted trtpack.Options or a mapping",
            hint='write options={"precision": "fp16"}, for example',
        )
    said = dict(options) if isinstance(options, Mapping) else {}
    for name, value in (settings or {}).items():
        if name in said:
            raise ConfigError(
                f"{name} is given twice", hint="give it in options or as an argument of its own"
            )
        said[name] = value
    base = options if isinstance(options, Options) else Options()
    base = dataclasses.replace(
        base, **{name: read_setting(name, getattr(base, name)) for name in FIELDS}
    )
    chosen = dataclasses.replace(base, **_fields(said))
    chosen = _with_targets(chosen, target, otherwise)
    if inputs and chosen.inputs:
        raise ConfigError(
            "inputs are given beside those of the options", hint="give the inputs once"
        )
    chosen = dataclasses.replace(chosen, inputs=inputs or chosen.inputs)
    check_together(chosen)
    return chosen


def check_together(options: Options) -> None:
    """Refuses settings that contradict each other, whatever the target is.

    Raises:
        ConfigError: it names both.
    """
    kept = (*options.torch_ops, *options.torch_modules)
    for name in ("strict", "require_full"):
        if getattr(options, name) and kept:
            raise ConfigError(
                f"--{name.replace('_', '-')} wants every operator on engines, but {kept[0]} is to "
                "stay in PyTorch",
                hint="leave one of them away",
            )
    both = sorted({*options.torch_ops} & {*options.trt_ops})
    if both:
        raise ConfigError(
            f"{both[0]} is named by --torch-op and by --trt-op", hint="leave one of them away"
        )
    if options.locked and not options.cache and options.tactics is None:
        raise ConfigError(
            "--locked uses known tactics only, and without the cache none are known",
            hint="add --tactics, or build with the cache",
        )


def check_files(options: Options) -> None:
    """Refuses files that could not be written at the end, before any work starts.

    Raises:
        ConfigError: it names the file.
    """
    if not options.dry_run:
        check_writable(options.output, "--output")
    if options.report is not None:
        check_writable(options.report, "--report")


def _fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Options`` that settings of any name come to."""
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in joined(said).items():
        for field, read in _read(name, value):
            if field == "pins" and field in found:
                found[field] = (*found[field], *read)
            elif field in found and found[field] != read:
                raise ConfigError(
                    f"{origin[field]} and {name} contradict each other: {field} would be "
                    f"{found[field]!r} and {read!r}",
                    hint="leave one of them away",
                )
            else:
                found[field], origin[field] = read, name
    return found


def _read(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if name in THEIRS and (name not in FIELDS or isinstance(value, bool)):
        return tuple((f, read_setting(f, v)) for f, v in translated(name, value).items())
    if name in FIELDS:
        return ((name, read_setting(name, value)),)
    known = (*FIELDS, *THEIRS)
    near = nearest(str(name), known)
    raise ConfigError(
        f"there is no setting {name!r}",
        hint=f"did you mean {near}?" if near else "see the fields of trtpack.Options",
    )


def _with_targets(
    chosen: Options, target: str | Sequence[str] | None, otherwise: str | None
) -> Options:
    names = () if target is None else read_setting("targets", target)
    if names and chosen.targets and chosen.targets != names:
        raise ConfigError(
            f"target is {', '.join(names)}, but the options say {', '.join(chosen.targets)}",
            hint="give the targets once",
        )
    names = names or chosen.targets or ((otherwise,) if otherwise else ())
    if not names:
        raise ConfigError(
            "no target is given", hint='add one, for example target="cpu"; see: trtpack targets'
        )
    return dataclasses.replace(chosen, targets=names)
