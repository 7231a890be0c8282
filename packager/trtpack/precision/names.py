# SPDX-License-Identifier: Apache-2.0
"""The precisions a build can be asked for, pins of single operators, and who has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..errors import ConfigError
from ..options import PIN_NAMES, PRECISION_NAMES, Options, Pin, PrecisionName
from ..target import Target

_CALIBRATED = ("int8", "fp8")
IN_BLOCKS = ("int4", "int8-weights", "auto")
"""The precisions that can give blocks of weights a scale each."""
_LATER = {
    "fp4": "TensorRT has it from 10.8 on and for SM 10.0 and later only, with two scales for each "
    "block, which nothing here can hold against a real engine yet",
}
"""What users ask for that no build makes, with the reason."""

_INSTEAD = {
    "bf16": "choose fp16 or mixed",
    "tf32": "choose fp32",
    "fp8": "choose int8",
    "int4": "choose int8, or fp16",
}
_AMPERE = 8.0
"""The compute capability from which on GPUs have bfloat16 and TF32."""


def parse_precision(text: str | None) -> PrecisionName | None:
    """The precision of a name.

    Raises:
        ConfigError: there is none of that name, or it cannot be built, with the reason.
    """
    for name in PRECISION_NAMES:
        if text == name:
            return name
    if text is None:
        return None
    if text in _LATER:
        raise ConfigError(
            f"--precision {text} cannot be built: {_LATER[text]}",
            hint="choose mixed, or give a model that has such layers already",
        )
    known = ", ".join(PRECISION_NAMES)
    raise ConfigError(f"there is no precision {text!r}", hint=f"choose one of {known}")


def parse_pin(text: str) -> Pin:
    """The pin of ``PATTERN=PRECISION``.

    Raises:
        ConfigError: no such form, no regular expression, or no precision of an operator.
    """
    pattern, equals, wanted = text.rpartition("=")
    if not equals or not pattern:
        raise ConfigError(f"bad pin {text!r}", hint="write it as --pin 'head.*=fp32'")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"bad pin {text!r}: {pattern!r} is no regular expression, {error}",
            hint="write it as --pin 'head.*=fp32'",
        ) from error
    for name in PIN_NAMES:
        if wanted == name:
            return Pin(pattern, name)
    why = f": {_LATER[wanted]}" if wanted in _LATER else ""
    raise ConfigError(
        f"an operator cannot be pinned to {wanted!r}{why}",
        hint=f"choose one of {', '.join(PIN_NAMES)}",
    )


def check_precision(options: Options, targets: Iterable[Target]) -> None:
    """Refuses a precision that one of the targets lacks, before any work is done.

    Raises:
        ConfigError: it names the flag, the target and what that has.
    """
    _check_calibration(options)
    _check_blocks(options)
    check_types(options, targets)


def check_types(options: Options, targets: Iterable[Target]) -> None:
    """Refuses types that one of the targets lacks.

    Raises:
        ConfigError: it names the flag, the target and what that has.
    """
    targets = tuple(targets)
    gpus = [target for target in targets if target.sm is not None]
    if options.precision == "tf32" and not gpus:
        raise ConfigError(
            "--precision tf32 is how NVIDIA GPUs round products, and no target is one",
            hint="choose fp32, or add a GPU",
        )
    for target in gpus:
        for flag, what in _asked(options):
            if reason := _lacks(what, target):
                raise ConfigError(
                    f"{flag} is not possible for {target.name}: {reason}",
                    hint=_INSTEAD[what],
                )


def _check_calibration(options: Options) -> None:
    """Refuses calibration that nothing asks for, and a precision that needs one and has none."""
    needed = options.precision in _CALIBRATED
    known = options.calibration_cache is not None and options.calibration_cache.is_file()
    if needed and options.calibrate is None and not known:
        raise ConfigError(
            f"--precision {options.precision} needs calibration data",
            hint="add --calibrate data.py:loader, or a folder of samples",
        )
    for flag, given in (
        ("--calibrate", options.calibrate),
        ("--observer", options.observer),
        ("--calibration-cache", options.calibration_cache),
        ("--calibrate-on cuda", "cuda" if options.calibrate_on == "cuda" else None),
    ):
        if given is not None and not needed and options.precision != "auto":
            raise ConfigError(
                f"{flag} is for --precision int8, fp8 and auto, "
                f"not for {options.precision or 'none'}",
                hint=f"leave {flag} away, or add --precision int8",
            )
    if options.calibration_samples < 1:
        raise ConfigError(
            f"--calibration-samples is {options.calibration_samples}", hint="give at least 1"
        )
    if options.calibrate_on == "cuda" and not _has_cuda():
        raise ConfigError(
            "--calibrate-on cuda needs a GPU that PyTorch can use, and there is none",
            hint="leave it away: the CPU finds the same ranges, in more time",
        )
    if options.precision == "fp8" and options.observer == "entropy":
        raise ConfigError(
            "--observer entropy compares 128 equal steps, which FP8 does not have",
            hint="choose minmax, percentile or mse",
        )


def _check_blocks(options: Options) -> None:
    """Refuses blocks of weights that nothing has."""
    block, precision = options.weight_block, options.precision
    if block is None:
        return
    if precision not in IN_BLOCKS:
        raise ConfigError(
            "--weight-block is for --precision int4, int8-weights and auto, "
            f"not for {precision or 'none'}",
            hint="leave --weight-block away, or add --precision int8-weights",
        )
    if block < 1:
        raise ConfigError(f"--weight-block is {block}", hint="give at least 1")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _asked(options: Options) -> Iterator[tuple[str, str]]:
    """Each flag that asks for a type which not all GPUs have, and that type."""
    wanted = {"bf16": "bf16", "mixed-bf16": "bf16", "tf32": "tf32", "fp8": "fp8", "int4": "int4"}
    if options.precision in wanted:
        yield f"--precision {options.precision}", wanted[options.precision]
    for pin in options.pins:
        if pin.precision == "bf16":
            yield f"--pin '{pin}'", "bf16"


def _lacks(what: str, target: Target) -> str | None:
    if what in ("fp8", "int4"):
        if what == "fp8" and not target.has_fp8:
            return f"SM {target.sm} has no FP8, which SM 8.9 brought"
        if target.tensorrt is not None and not target.tensorrt_at_least("10.0"):
            release = ".".join(map(str, target.tensorrt[:3]))
            return f"its TensorRT {release} has no {what.upper()}, which 10.0 brought"
        return None
    name = {"bf16": "bfloat16", "tf32": "TF32"}[what]
    if target.sm is not None and float(target.sm) < _AMPERE:
        return f"SM {target.sm} has no {name}, which SM 8.0 brought"
    if what == "bf16" and target.tensorrt is not None and not target.tensorrt_at_least("10.0"):
        release = ".".join(map(str, target.tensorrt[:3]))
        return f"its TensorRT {release} has no bfloat16, which 10.0 brought"
    return None
