# SPDX-License-Identifier: Apache-2.0
"""Sets TensorRT's builder configuration from our options; what a release lacks is said, not left.

Sources: ``NvInfer.h`` of each release, for the first one with a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.network import Network

from ._emit import Emitted
from ._options import BuildOptions
from ._release import major

_HINT = "build without that option, or with a TensorRT that has it"

_FLAG = "BuilderFlag"
_SINCE = {
    (_FLAG, "STRIP_PLAN"): "10.2",
    (_FLAG, "REFIT_INDIVIDUAL"): "10.2",
    (_FLAG, "VERSION_COMPATIBLE"): "8.6",
    (_FLAG, "ERROR_ON_TIMING_CACHE_MISS"): "10.0",
    (_FLAG, "WEIGHT_STREAMING"): "10.0",
    (_FLAG, "STRICT_NANS"): "10.6",
    (_FLAG, "DISTRIBUTIVE_INDEPENDENCE"): "10.12",
    ("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"): "10.9",
    ("ComputeCapability", ""): "TensorRT-RTX",
    ("INetworkDefinition", "mark_debug"): "10.0",
    ("MemoryPoolType", "TACTIC_SHARED_MEMORY"): "10.0",
}
"""The first release with a name, as messages say it."""


def check_release(trt: Any, options: BuildOptions) -> None:
    """Refuses options this release does not have, before anything is emitted.

    Raises:
        EngineBuildError: it names the option, the release that has it, and this one.
    """
    needed = [
        (options.weights == "stripped", "engines without weights", _FLAG, "STRIP_PLAN"),
        # without it TensorRT strips constants of ours too, which no bundle could give back
        (options.weights == "stripped", "engines without weights", _FLAG, "REFIT_INDIVIDUAL"),
        (options.version_compatible, "version-compatible engines", _FLAG, "VERSION_COMPATIBLE"),
        (options.locked, "a locked timing cache", _FLAG, "ERROR_ON_TIMING_CACHE_MISS"),
        (
            options.hardware_compatibility != "NONE",
            f"hardware compatibility {options.hardware_compatibility}",
            "HardwareCompatibilityLevel",
            options.hardware_compatibility,
        ),
        (
            bool(options.compute_capabilities),
            "a list of GPUs to build for",
            "ComputeCapability",
            "",
        ),
        (bool(options.debug), "debug tensors", "INetworkDefinition", "mark_debug"),
        *((True, f"the flag {name}", _FLAG, name) for name in options.flags),
        *((True, f"the memory pool {name}", "MemoryPoolType", name) for name in options.pools),
    ]
    for wanted, what, kind, member in needed:
        if wanted and not _has(trt, kind, member):
            since = _SINCE.get((kind, member))
            other = f", {since} has" if since else ""
            raise EngineBuildError(
                f"TensorRT {trt.__version__} does not have {what}{other}", hint=_HINT
            )
    if options.version_compatible and options.weights != "inside" and major(trt) < 10:
        raise EngineBuildError(
            f"TensorRT {trt.__version__} cannot refit version-compatible engines, 10.0 can",
            hint="give one of the two options",
        )


def configure(
    emitted: Emitted,
    config: Any,
    network: Network,
    options: BuildOptions,
    *,
    workspace_bytes: int | None = None,
) -> None:
    """Sets everything but the timing cache and the progress monitor.

    ``workspace_bytes`` stands where the options give none; None leaves TensorRT's own, which is
    all of the GPU's memory.

    Raises:
        EngineBuildError: TensorRT refused an option, with its words.
        DeviceError: the GPU has no such DLA core.
    """
    trt = emitted.trt
    if not options.tf32:
        with _told(emitted, "without TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
    for name in dict.fromkeys((*_flags(trt, network, options, emitted.strong), *options.flags)):
        with _told(emitted, f"the flag {name}"):
            config.set_flag(getattr(trt.BuilderFlag, name))
            if not config.get_flag(getattr(trt.BuilderFlag, name)):
                raise _refused(emitted, f"the flag {name}", [])
    for attribute, value in _numbers(options).items():
        with _told(emitted, attribute):
            setattr(config, attribute, value)
    if options.hardware_compatibility != "NONE":
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility)
        with _told(emitted, f"hardware compatibility {options.hardware_compatibility}"):
            config.hardware_compatibility_level = level
    if options.detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    workspace = options.workspace_bytes or workspace_bytes
    pools = {**({"WORKSPACE": workspace} if workspace else {}), **options.pools}
    for name, size in pools.items():
        with _told(emitted, f"{size} bytes for the memory pool {name}"):
            config.set_memory_pool_limit(getattr(trt.MemoryPoolType, name), size)
    if options.compute_capabilities:
        _set_capabilities(trt, config, options.compute_capabilities)
    if options.dla_core is not None:
        _use_dla(emitted, config, options.dla_core)
    _add_profiles(emitted, config, network)
    old = hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806") and major(trt) < 10
    if old and any(profile.shapes for profile in network.profiles):
        # later releases always do: a profile would serve one execution context, so one thread
        with _told(emitted, "profiles for several execution contexts"):
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def _flags(trt: Any, network: Network, options: BuildOptions, strong: bool) -> Iterator[str]:
    """The builder flags that the options and the network's types ask for."""
    if not strong:
        yield "OBEY_PRECISION_CONSTRAINTS"
        types = network.every_dtype()
        flags = {"HALF": "FP16", "BF16": "BF16", "INT8": "INT8", "FP8": "FP8", "INT4": "INT4"}
        yield from sorted(
            flags[name] for name in types & set(flags) if _has(trt, _FLAG, flags[name])
        )
    if options.weights != "inside":
        yield "REFIT_INDIVIDUAL" if _has(trt, _FLAG, "REFIT_INDIVIDUAL") else "REFIT"
    if options.weights == "stripped":
        yield "STRIP_PLAN"
    if options.version_compatible:
        yield "VERSION_COMPATIBLE"
    if options.sparse:
        yield "SPARSE_WEIGHTS"
    if options.locked:
        yield "ERROR_ON_TIMING_CACHE_MISS"
    if options.dla_core is not None:
        yield "GPU_FALLBACK"


def _numbers(options: BuildOptions) -> dict[str, int]:
    given = {
        "builder_optimization_level": options.optimization_level,
        "avg_timing_iterations": options.avg_timing_iterations,
    }
    return {name: value for name, value in given.items() if value is not None}


def _use_dla(emitted: Emitted, config: Any, core: int) -> None:
    has = emitted.builder.num_DLA_cores
    if core >= has:
        raise DeviceError(
            f"there is no DLA core {core}: TensorRT {emitted.trt.__version__} sees {has} here",
            hint="build without a DLA core, or on a Jetson that has one",
        )
    with _told(emitted, f"DLA core {core}"):
        config.default_device_type = emitted.trt.DeviceType.DLA
        config.DLA_core = core


def _set_capabilities(trt: Any, config: Any, names: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        known = trt.ComputeCapability.__members__
        if name not in known or not config.set_compute_capability(known[name], index):
            raise EngineBuildError(
                f"this TensorRT-RTX cannot build for {name}, it knows {', '.join(known)}",
                hint="choose another target",
            )


def _add_profiles(emitted: Emitted, config: Any, network: Network) -> None:
    hint = "give each dynamic input min <= opt <= max"
    for shapes in network.profiles:
        profile = emitted.builder.create_optimization_profile()
        before = len(emitted.log.errors)
        for name, (smallest, usual, largest) in shapes.shapes.items():
            try:
                profile.set_shape(name, smallest, usual, largest)
            except (RuntimeError, ValueError) as error:
                raise EngineBuildError(
                    f"TensorRT refused the shapes {smallest}, {usual}, {largest} of {name}: "
                    + "; ".join(emitted.log.errors[before:] or [str(error)]),
                    hint=hint,
                ) from error
        if config.add_optimization_profile(profile) < 0:
            said = "; ".join(emitted.log.errors[before:]) or "it gave no reason"
            raise EngineBuildError(
                f"TensorRT refused the shape ranges {dict(shapes.shapes)}: {said}", hint=hint
            )


@contextmanager
def _told(emitted: Emitted, option: str) -> Iterator[None]:
    """Raises for what TensorRT logs as an error meanwhile; setters refuse without a word."""
    before = len(emitted.log.errors)
    yield
    if len(emitted.log.errors) > before:
        raise _refused(emitted, option, emitted.log.errors[before:])


def _refused(emitted: Emitted, option: str, said: list[str]) -> EngineBuildError:
    words = "; ".join(said) or "it gave no reason"
    return EngineBuildError(
        f"TensorRT {emitted.trt.__version__} refused {option}: {words}",
        hint="build without that option, or with another value",
    )


def _has(trt: Any, kind: str, member: str) -> bool:
    owner = getattr(trt, kind, None)
    return owner is not None and (not member or hasattr(owner, member))
