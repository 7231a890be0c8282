# SPDX-License-Identifier: Apache-2.0
"""``torch.compile(options={...})`` as ``Options``, and what has no meaning there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from trtpack.api.settings import settled
from trtpack.errors import ConfigError
from trtpack.options import Options
from trtpack.spelling import nearest
from trtpack.target import AUTO

# fmt: off
OFFERED = frozenset({
    "targets", "engine", "strict", "strict_dtypes", "precision", "pins", "weight_block",
    "min_block_size", "torch_ops", "torch_modules", "trt_ops", "require_full", "converters",
    "workspace_bytes", "optimization_level", "avg_timing_iterations", "engine_weights",
    "version_compatible", "hardware_compatible", "sparse", "prune", "dla_core", "debug_tensors",
    "threads", "freezing", "max_autotune", "cache", "tactics", "locked",
})
# fmt: on
"""The fields of ``Options`` that mean something where a graph is compiled as it runs."""

_VARIES = "mark what varies with torch._dynamo.mark_dynamic, or give dynamic=True"
_QUANTIZE = "quantize with trtpack.build, or give a quantized model"
_INSTEAD = {
    "inputs": _VARIES,
    "profiles": _VARIES,
    "dtype": "convert the model with .half() or .bfloat16() first",
    "weights": "load them into the model first",
    "calibrate": _QUANTIZE,
    "calibration_cache": _QUANTIZE,
    "calibrate_on": _QUANTIZE,
}
_CALIBRATED = ("int8", "fp8", "auto")


def options_of(given: Options | Mapping[str, Any] | None) -> Options:
    """The options of a dictionary as ``api.settings.settled`` takes it, where ``"target"`` does for
    ``"targets"``, or ``Options`` as they are; this machine is the target where none is given.

    Raises:
        ConfigError: an unknown key or operator, with the nearest; a wrong value; two that
            contradict each other; or one that only a bundle has.
    """
    target = None
    if isinstance(given, Mapping):
        given = dict(given)
        target = given.pop("target", None)
    made = settled(given, target=target, otherwise=AUTO)
    usual = Options(targets=made.targets)
    for field in fields(Options):
        if field.name not in OFFERED and getattr(made, field.name) != getattr(usual, field.name):
            raise ConfigError(
                f"{field.name} is for bundles, and torch.compile writes none",
                hint=_INSTEAD.get(field.name, "leave it away, or use trtpack.build"),
            )
    if made.precision in _CALIBRATED:
        raise ConfigError(
            f"precision {made.precision} is chosen with data, which torch.compile has none of",
            hint=_QUANTIZE,
        )
    if len(made.targets) != 1:
        raise ConfigError(
            f"torch.compile builds for one target, not for {len(made.targets)}",
            hint="leave the targets away to build for this machine",
        )
    for name in ("torch_ops", "trt_ops"):
        if not made.converters:  # which may bring operators
            _check_operators(name, getattr(made, name))
    return made


def _check_operators(setting: str, operators: tuple[str, ...]) -> None:
    """Refuses what no library has registered; of several graphs, some may lack any other."""
    if not operators:
        return
    known = {name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names()}
    known |= {f"{name}.default" for name in known if name.count(".") == 1}
    known |= {".".join(name.split(".")[:2]) for name in known}
    for operator in operators:
        if operator not in known:
            near = nearest(operator, known)
            raise ConfigError(
                f"{setting} names {operator}, and PyTorch knows no such operator",
                hint=f"did you mean {near}?" if near else "write it as aten.add or aten.add.Tensor",
            )
