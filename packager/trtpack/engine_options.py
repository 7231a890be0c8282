# SPDX-License-Identifier: Apache-2.0
"""How TensorRT builds for a target: what was asked for, held against what that target has.

Source of the releases: the builder's Python API of each (``BuilderFlag``,
``HardwareCompatibilityLevel``, ``INetworkDefinition.mark_debug``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from trtpack_runtime.network import Network

from .errors import ConfigError
from .options import EngineKind, Options
from .spelling import nearest
from .target import Target

if TYPE_CHECKING:
    from trtpack_runtime.engines._options import BuildOptions, HardwareCompatibility

TENSORRT_KINDS: tuple[EngineKind, ...] = ("tensorrt", "tensorrt-rtx")

_FLAGS = {
    "profiles": "--profile",
    "avg_timing_iterations": "--avg-timing-iterations",
    "engine_weights": "--engine-weights",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
    "sparse": "--sparse",
    "dla_core": "--dla-core",
    "debug_tensors": "--debug-tensors",
    "cuda_graphs": "--cuda-graphs",
    "tactics": "--tactics",
    "locked": "--locked",
}
"""The options that only TensorRT heeds, with their flags."""
_INDUCTOR_FLAGS = {
    "threads": "--threads",
    "freezing": "--freezing",
    "max_autotune": "--max-autotune",
}
"""Those that only AOTInductor heeds."""

_LEVELS: dict[str | None, HardwareCompatibility] = {
    None: "NONE",
    "ampere+": "AMPERE_PLUS",
    "same-sm": "SAME_COMPUTE_CAPABILITY",
}
_WORKSPACE_PART = 2
_SHARED_WORKSPACE_PART = 4
"""The part of a target's memory that a tactic may use: less where the CPU needs it too."""


def kind_for(options: Options, target: Target) -> EngineKind:
    """The engine kind of a target's segments."""
    return options.engine or target.engine_kind


def check_engine_options(options: Options, targets: Iterable[Target]) -> None:
    """Refuses what no target or one of them cannot do, before any work is done.

    Raises:
        ConfigError: it names the flag, the target, what that has and what has it.
    """
    targets = tuple(targets)
    built = [t for t in targets if kind_for(options, t) in TENSORRT_KINDS]
    unset = {field.name: field.default for field in fields(Options)}
    given = [flag for name, flag in _FLAGS.items() if getattr(options, name) != unset[name]]
    if given and not built:
        raise ConfigError(
            f"{given[0]} is for TensorRT, which builds for none of the targets",
            hint=f"leave {given[0]} away, or add a target with TensorRT",
        )
    _check_inductor(options, targets)
    alone = all(kind_for(options, t) == "tensorrt-rtx" for t in built)
    for target in built:
        for flag, problem, remedy in _problems(options, target, alone):
            raise ConfigError(
                f"{flag} is not possible for {target.name}: {problem}",
                hint=f"{remedy}, or leave {flag} away",
            )


def inductor_config(options: Options) -> dict[str, Any]:
    """The settings of Inductor that were asked for, by its names for them."""
    config: dict[str, Any] = {}
    if options.threads is not None:
        config |= {"cpp.threads": options.threads, "cpp.dynamic_threads": False}
    config |= {"freezing": True} if options.freezing else {}
    return config | ({"max_autotune": True} if options.max_autotune else {})


def _check_inductor(options: Options, targets: Iterable[Target]) -> None:
    unset = {field.name: field.default for field in fields(Options)}
    given = [f for name, f in _INDUCTOR_FLAGS.items() if getattr(options, name) != unset[name]]
    if given and not any(kind_for(options, t) == "inductor" for t in targets):
        raise ConfigError(
            f"{given[0]} is for AOTInductor, which compiles for none of the targets",
            hint=f"leave {given[0]} away, or add a target such as cpu",
        )


def build_options(options: Options, target: Target, network: Network | None = None) -> BuildOptions:
    """What TensorRT is told, for a target whose options were checked.

    TensorRT-RTX beside TensorRT keeps its weights inside and its tactics free. With ``network`` the
    debug tensors are the names of its own that match.
    """
    from trtpack_runtime.engines._options import BuildOptions

    full = kind_for(options, target) == "tensorrt"
    return BuildOptions(
        optimization_level=options.optimization_level,
        avg_timing_iterations=options.avg_timing_iterations,
        workspace_bytes=workspace_bytes(options, target),
        tf32=options.precision == "tf32",
        weights=options.engine_weights if full else "inside",
        version_compatible=options.version_compatible,
        hardware_compatibility=_LEVELS[options.hardware_compatible],
        sparse=options.sparse,
        dla_core=options.dla_core,
        debug=debug_tensors(options, network) if network is not None else (),
        locked=options.locked and full,
    )


def workspace_bytes(options: Options, target: Target) -> int | None:
    """The most scratch memory a tactic may use: as asked for, else a part of the target's."""
    if options.workspace_bytes is not None or target.memory_bytes is None:
        return options.workspace_bytes
    part = _SHARED_WORKSPACE_PART if target.memory_unified else _WORKSPACE_PART
    return target.memory_bytes // part


def check_debug_tensors(options: Options, networks: Iterable[Network]) -> None:
    """Refuses a pattern of ``--debug-tensors`` that matches in no engine, a misspelling mostly.

    Raises:
        ConfigError: with the nearest name that there is.
    """
    if not options.debug_tensors:
        return
    layers = [layer for network in networks for layer in network.layers]
    known = sorted({name for layer in layers for name in layer.outputs})
    for pattern in options.debug_tensors:
        if not fnmatch.filter(known, pattern):
            near = nearest(pattern, known)
            raise ConfigError(
                f"--debug-tensors '{pattern}' matches no tensor within an engine",
                hint=f"did you mean --debug-tensors '{near}'?"
                if near
                else "name layers as trtpack profile lists them, such as 'layer1.*'",
            )


def debug_tensors(options: Options, network: Network) -> tuple[str, ...]:
    """The layers' outputs whose names match ``--debug-tensors``, in the network's order."""
    return tuple(
        name
        for layer in network.layers
        for name in layer.outputs
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.debug_tensors)
    )


def _problems(options: Options, target: Target, alone: bool) -> Iterator[tuple[str, str, str]]:
    """(flag, what is wrong, what would be right) of everything a target cannot do.

    ``alone``: no other target has the full TensorRT, so what TensorRT-RTX leaves out has no use.
    """
    rtx = kind_for(options, target) == "tensorrt-rtx"
    if rtx and target.rtx_capability is None:
        yield "--engine tensorrt-rtx", _rtx_problem(target), "choose a target that it serves"
    if options.engine == "tensorrt" and target.engine_kind not in TENSORRT_KINDS:
        yield "--engine tensorrt", "it has no TensorRT", "choose a target that has it"
    version = ".".join(map(str, target.tensorrt or ()))
    has = f"{target.stack or target.name} has {version}" if version else "its own is not known"

    def lacks(release: str) -> str | None:
        return None if target.tensorrt_at_least(release) else f"TensorRT {release} has it, {has}"

    weights = f"--engine-weights {options.engine_weights}"
    if options.engine_weights != "inside" and rtx and alone:
        problem = "engines of TensorRT-RTX hold their weights"
        yield weights, problem, "build for a target with TensorRT"
    elif options.engine_weights == "stripped" and not rtx and (why := lacks("10.2")):
        yield weights, why, "choose refittable, or a newer stack"
    if options.version_compatible:
        if rtx:
            problem = "TensorRT-RTX brings no lean runtime"
            yield "--version-compatible", problem, "build for a target with TensorRT"
        elif options.engine_weights != "inside" and not target.tensorrt_at_least("10.0"):
            problem = f"before TensorRT 10.0 not with --engine-weights too, {has}"
            yield "--version-compatible", problem, "choose a newer stack"
    yield from _hardware_problems(options, target, rtx, lacks("10.9"))
    if options.dla_core is not None and options.dla_core >= (target.dla_cores or 0):
        yield f"--dla-core {options.dla_core}", _dla_problem(target), "choose a target with DLA"
    if options.debug_tensors and (why := lacks("10.0")):
        yield "--debug-tensors", why, "choose a newer stack"
    if rtx and alone and (options.locked or options.tactics is not None):
        problem = "TensorRT-RTX chooses tactics on the device and keeps no cache of them"
        flag = "--locked" if options.locked else "--tactics"
        yield flag, problem, "build for a target with TensorRT"
    if options.locked and not rtx and (why := lacks("10.0")):
        yield "--locked", why, "choose a newer stack"


def _hardware_problems(
    options: Options, target: Target, rtx: bool, too_old: str | None
) -> Iterator[tuple[str, str, str]]:
    flag = f"--hardware-compatible {options.hardware_compatible}"
    if options.hardware_compatible is None:
        return
    if rtx:
        yield flag, "an engine of TensorRT-RTX names its GPUs", "add a target for each GPU"
    elif options.hardware_compatible == "same-sm":
        if too_old:
            yield flag, too_old, "choose a newer stack"
    elif target.family == "jetson":
        yield flag, "Jetsons have no compatible engines", "build for each device"
    elif target.sm is not None and float(target.sm) < 8.0:
        yield flag, f"SM {target.sm} is older than Ampere (SM 8.0)", "build for each GPU"


def _dla_problem(target: Target) -> str:
    if target.dla_cores:
        last = target.dla_cores - 1
        return f"it has DLA cores 0 to {last}" if last else "it has DLA core 0 only"
    from .target import catalogue, no_dla

    known = catalogue()
    return no_dla(target, known).told(known.sources)


def _rtx_problem(target: Target) -> str:
    from .target import catalogue, why_not

    known = catalogue()
    device = known.devices.get(target.key.partition("@")[0])
    for stack in known.stacks.values():
        if stack.kind == "tensorrt-rtx" and device and (why := why_not(device, stack)):
            return f"not {stack.title}: {why.told(known.sources)}"
    return f"it does not serve SM {target.sm}"
