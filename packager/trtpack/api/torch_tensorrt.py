# SPDX-License-Identifier: Apache-2.0
"""The settings of Torch-TensorRT that people know, as the options that mean the same.

Source of the names and of what they mean: Torch-TensorRT's "CompilationSettings Reference".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..options import Pin, PinName
from .operators import items, operator_name

Fields = Mapping[str, Any]

_TYPES = {
    **dict.fromkeys(("float32", "float", "f32", "fp32"), "fp32"),
    **dict.fromkeys(("float16", "half", "f16", "fp16"), "fp16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bf16"),
    **dict.fromkeys(("int8", "i8"), "int8"),
    **dict.fromkeys(("float8_e4m3fn", "f8", "fp8"), "fp8"),
}
_PRODUCTS = r"aten\.(linear|matmul|addmm|mm|bmm|baddbmm)"


def joined(said: Mapping[Any, Any]) -> dict[Any, Any]:
    """Settings without those that another of Torch-TensorRT's takes the place of.

    Stripped engines are refittable ones. One setting has its autocast on, another says the type;
    neither this nor what is excluded means anything where it is off.
    """
    left = dict(said)
    if left.get("strip_engine_weights") is True:
        _drop(left, "make_refittable", True)
        _drop(left, "immutable_weights", False)
    if left.get("enable_autocast") is False:
        return {name: left[name] for name in left if not str(name).startswith("autocast_")}
    if left.get("autocast_low_precision_type") is not None:
        _drop(left, "enable_autocast", True)
    return left


def _drop(settings: dict[Any, Any], name: str, value: bool) -> None:
    if settings.get(name) is value:
        del settings[name]


class SettingWarning(FutureWarning):
    """A setting that has another name here, or that nothing needs any more."""


def translated(name: str, value: Any) -> Fields:
    """A setting of Torch-TensorRT as fields of ``Options``.

    Raises:
        ConfigError: it has no meaning here, with the reason; or not with this value.
    """
    if name in _NOT_HERE:
        reason, hint = _NOT_HERE[name]
        raise ConfigError(f"there is no {name}: {reason}", hint=hint)
    if name in _NOT_NEEDED:
        warnings.warn(f"{name} is not needed: {_NOT_NEEDED[name]}", SettingWarning, stacklevel=6)
        return {}
    if name in _SWITCHES and not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}, wanted True or False", hint=f"correct {name}")
    try:
        return _SAME[name](value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {value!r}: {error}", hint=f"correct {name}") from error


def _precisions(value: Any) -> Fields:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    named = {_type(item) for item in (value if several else (value,))}
    asked = sorted(named - {"fp32"})
    if {"int8", "fp8"} & named:
        raise ConfigError(
            f"enabled_precisions has {asked[-1]}, which needs scales",
            hint=f'write precision="{asked[-1]}" with calibrate=..., or quantize the model before',
        )
    if len(asked) > 1:
        raise ConfigError(
            f"enabled_precisions has {' and '.join(asked)}", hint="choose one of them"
        )
    precision = {"fp16": "mixed", "bf16": "mixed-bf16"}[asked[0]] if asked else "fp32"
    warnings.warn(
        f'enabled_precisions is deprecated: write precision="{precision}"',
        SettingWarning,
        stacklevel=7,
    )
    return {"precision": precision}


def _type(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    found = _TYPES.get(text.rpartition(".")[2].lower())
    if found is None:
        raise ConfigError(f"there is no precision {text}", hint="write for example torch.float16")
    return found


def _hardware(value: bool) -> Fields:
    return {"hardware_compatible": "ampere+" if value else None}


def _tf32(disabled: bool) -> Fields:
    return {} if disabled else {"precision": "tf32"}


def _typing(explicit: bool) -> Fields:
    if not explicit:
        raise ConfigError(
            "networks are typed here, TensorRT chooses no precision by itself",
            hint='write precision="mixed" for float16 where it does no harm',
        )
    return {}


def _dry_run(value: Any) -> Fields:
    if isinstance(value, str | Path):
        return {"dry_run": True, "report": value}
    return {"dry_run": value}


def _timing_cache(path: Any) -> Fields:
    return {"tactics": Path(path)} if Path(path).is_file() else {}


def _wide_sums(value: bool) -> Fields:
    return {"pins": _pins((_PRODUCTS,), "fp16-fp32acc")} if value else {}


def _autocast(value: bool) -> Fields:
    return {"precision": "mixed"} if value else {}


def _autocast_type(value: Any) -> Fields:
    kinds = {"fp16": "mixed", "bf16": "mixed-bf16"}
    kind = "fp16" if value is None else _type(value)
    if kind not in kinds:
        raise ConfigError(f"autocast does not choose {kind}", hint="choose torch.float16")
    return {"precision": kinds[kind]}


def _excluded_nodes(value: Any) -> Fields:
    return {"pins": _pins(map(str, items(value)), "fp32")}


def _excluded_operators(value: Any) -> Fields:
    return {"pins": _pins((re.escape(str(operator_name(op))) for op in items(value)), "fp32")}


def _pins(patterns: Iterable[str], precision: PinName) -> tuple[Pin, ...]:
    return tuple(Pin(pattern, precision) for pattern in patterns)


_SAME: Mapping[str, Callable[[Any], Fields]] = {
    "enabled_precisions": _precisions,
    "torch_executed_ops": lambda value: {"torch_ops": value},
    "require_full_compilation": lambda value: {"require_full": value},
    "truncate_double": lambda value: {"strict_dtypes": not value},
    "truncate_long_and_double": lambda value: {"strict_dtypes": not value},
    "workspace_size": lambda value: {"workspace_bytes": value or None},
    "num_avg_timing_iters": lambda value: {"avg_timing_iterations": value},
    "sparse_weights": lambda value: {"sparse": value},
    "hardware_compatible": _hardware,
    "disable_tf32": _tf32,
    "use_explicit_typing": _typing,
    "use_strong_types": _typing,
    "use_fp32_acc": _wide_sums,
    "enable_autocast": _autocast,
    "autocast_low_precision_type": _autocast_type,
    "autocast_excluded_nodes": _excluded_nodes,
    "autocast_excluded_ops": _excluded_operators,
    "dryrun": _dry_run,
    "timing_cache_path": _timing_cache,
    "cache_built_engines": lambda value: {"cache": value},
    "reuse_cached_engines": lambda value: {"cache": value},
    "strip_engine_weights": lambda value: {"engine_weights": "stripped"} if value else {},
    "make_refittable": lambda value: {"engine_weights": "refittable"} if value else {},
    "immutable_weights": lambda value: {} if value else {"engine_weights": "refittable"},
}

_SWITCHES = frozenset(
    {
        "truncate_double",
        "truncate_long_and_double",
        "disable_tf32",
        "use_explicit_typing",
        "use_strong_types",
        "use_fp32_acc",
        "enable_autocast",
        "strip_engine_weights",
        "make_refittable",
        "immutable_weights",
    }
)
"""Those that are true or false; what they come to would take any value for one of the two."""

_NOT_NEEDED: Mapping[str, str] = {
    "ir": "there is one way, torch.export",
    "use_python_runtime": "there is one runtime",
    "use_fast_partitioner": "there is one partitioner",
    "assume_dynamic_shape_support": "converters take dynamic shapes, or refuse an operator",
    "enable_experimental_decompositions": "what no converter takes is decomposed",
    "refit_identical_engine_weights": "engines of equal networks and weights are found in a cache",
    "use_distributed_mode_trace": "a model is captured by torch.export alone",
    "offload_module_to_cpu": "a model is captured on the CPU",
    "lazy_engine_init": "engines are loaded when the bundle is",
}
"""Settings without an effect, and why."""

_LOAD = 'say it when the bundle is loaded: load={"device": "cuda:1"}'
_LOGS = 'write logging.getLogger("trtpack").setLevel(logging.DEBUG)'
_NOT_HERE: Mapping[str, tuple[str, str]] = {
    "arg_inputs": ("inputs has its place", "write inputs=..."),
    "kwarg_inputs": ("kwargs has its place", "write kwargs=..."),
    "device": ("a bundle is built for a target", f'write target="native", and {_LOAD}'),
    "gpu_id": ("a bundle is built for a target", f'write target="native", and {_LOAD}'),
    "torch_executed_modules": (
        "modules are named by their paths here, not by their classes",
        'write torch_modules=["encoder.*"]',
    ),
    "debug": ("messages go to logging", _LOGS),
    "pass_through_build_failures": (
        "layers that TensorRT refuses are found, and the rest is built without",
        "write strict=True to fail instead",
    ),
    "max_aux_streams": ("TensorRT chooses", "leave it away"),
    "engine_capability": ("engines are of the standard kind", "leave it away"),
    "dla_sram_size": ("TensorRT's own is taken", "leave it away, dla_core chooses the core"),
    "dla_local_dram_size": ("TensorRT's own is taken", "leave it away, dla_core chooses the core"),
    "dla_global_dram_size": ("TensorRT's own is taken", "leave it away, dla_core chooses the core"),
    "enable_weight_streaming": ("engines keep their weights on the GPU", "leave it away"),
    "enable_cross_compile_for_windows": ("bundles are for Linux", "leave it away"),
    "tiling_optimization_level": ("TensorRT's own is taken", "leave it away"),
    "l2_limit_for_tiling": ("TensorRT's own is taken", "leave it away"),
    "engine_cache_dir": (
        "engines are kept in the user's cache folder",
        "set XDG_CACHE_HOME, or write cache=False",
    ),
    "engine_cache_size": ("the cache has one limit", "set TRTPACK_STORE_LIMIT"),
    "custom_engine_cache": ("there is one cache", "see: trtpack cache --help"),
    "autocast_calibration_dataloader": (
        "what rounds badly is measured on the model's own inputs",
        "give real inputs, and a budget: budgets=['cosine>=0.999']",
    ),
    "autocast_max_output_threshold": ("ranges are measured", "pin operators: pins=['head.*=fp32']"),
    "autocast_max_depth_of_reduction": (
        "ranges are measured",
        "pin operators: pins=['head.*=fp32']",
    ),
    "cpu_memory_budget": ("engines are built in a process of their own", "leave it away"),
    "enable_resource_partitioning": (
        "engines are built in a process of their own",
        "leave it away",
    ),
    "dynamically_allocate_resources": ("TensorRT chooses", "leave it away"),
}
"""Settings that are refused: why, and what to do."""

NAMES = frozenset({*_SAME, *_NOT_NEEDED, *_NOT_HERE})
"""Every name of Torch-TensorRT's that is known here."""
