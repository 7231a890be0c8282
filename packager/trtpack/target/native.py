# SPDX-License-Identifier: Apache-2.0
"""The target ``native``: this machine's own GPU with the TensorRT that is installed on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trtpack_runtime.builders import Site
from trtpack_runtime.compiling import cannot_compile
from trtpack_runtime.engines.tensorrt import can_build
from trtpack_runtime.engines.tensorrt_rtx import CAPABILITIES
from trtpack_runtime.errors import DeviceError

from .files import OLDEST_TENSORRT, Device, Peak, Stack
from .model import Target

NAME = "native"
SUMMARY = "this machine's own GPU and TensorRT"

_FP8_SM, _FP4_SM = (8, 9), (10, 0)
_NEAR = 0.15
"""A device of the list is taken for this one where their memory differs by less, relatively."""


def native_target(
    facts: Mapping[str, Any],
    devices: Iterable[Device] = (),
    stacks: Iterable[Stack] = (),
    engine: str | None = None,
) -> Target:
    """The target that a machine of these facts (``trtpack_runtime.device.facts``) is, by GPU 0.

    What no machine tells, such as how many DLA cores TensorRT can use, is as ``devices`` and
    ``stacks`` have it for a device of this kind. With ``engine`` ``inductor``, or ``reference``
    where there is no TensorRT, PyTorch runs all of a model.

    Raises:
        DeviceError: there is no GPU, no TensorRT that serves it, or its driver is too old for that.
    """
    if not facts["gpus"]:
        why = "; ".join(facts.get("problems") or ()) or "there is no NVIDIA GPU"
        raise DeviceError(
            f"this machine cannot be a target: {why}",
            hint="build with --target cpu, or name the device to build for, see: trtpack targets",
        )
    gpu = facts["gpus"][0]
    kind, release = _builder(facts, gpu, engine)
    like = device_like(facts, gpu, devices)
    stack = _stack_of(facts, stacks)
    memory = facts["memory"]["total_bytes"] if gpu.get("integrated") else gpu["memory_bytes"]
    sm = tuple(map(int, gpu["sm"].split(".")))
    title = "-".join((kind, *filter(None, [".".join(map(str, release))])))
    has_dla = kind == "tensorrt" and stack is not None and stack.dla and like is not None
    target = Target(
        name=NAME,
        key=f"{_slug(gpu['name'])}@{title}",
        device=gpu["name"],
        family=like.family if like else "native",
        sm=gpu["sm"],
        sm_also=like.sm_also if like else (),
        arch=facts["arch"],
        memory_bytes=memory or None,
        memory_unified=gpu.get("integrated"),
        engine_kind=kind,
        tensorrt=release or None,
        stack=stack.id if stack else title,
        os=facts.get("os_release"),
        cuda=(facts.get("driver") or {}).get("cuda"),
        python=".".join(facts["python"].split(".")[:2]),
        dla_cores=like.dla_cores if has_dla and like else 0,
        has_fp8=sm >= _FP8_SM,
        has_fp4=sm >= _FP4_SM,
        rtx_capability=CAPABILITIES.get(gpu["sm"]),
        peak=like.peak if like else Peak(),
        unsupported=None,
        notes=(),
    )
    compiles = cannot_compile(Site(facts, target.describe())) is None
    return replace(target, compiles_here=compiles)


def release_of(version: str) -> tuple[int, ...]:
    """``(8, 6, 0)`` of ``8.6.0``, ``(10, 3, 0, 26)`` of ``10.3.0.26.post1``."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _builder(
    facts: Mapping[str, Any], gpu: Mapping[str, Any], engine: str | None
) -> tuple[Any, tuple[int, ...]]:
    """The engine kind and its release: TensorRT before TensorRT-RTX."""
    if engine == "inductor":
        return engine, ()
    have = f"{gpu['name']} (SM {gpu['sm']})"
    full = facts.get("tensorrt")
    if full and release_of(full) >= OLDEST_TENSORRT:
        why = None if engine == "reference" else can_build(facts)
        if why is not None:
            raise DeviceError(
                f"this machine cannot be a target: {why}",
                hint="do that, or build with --target cpu",
            )
        return "tensorrt", release_of(full)
    rtx = facts.get("tensorrt_rtx")
    if rtx and gpu["sm"] in CAPABILITIES:
        return "tensorrt-rtx", release_of(rtx)
    if engine == "reference":
        return "inductor", ()
    if full:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        raise DeviceError(
            f"this machine has TensorRT {full} for {have}, which is older than {oldest}",
            hint=f"install TensorRT {oldest} or newer, or use --engine inductor",
        )
    if rtx:
        raise DeviceError(
            f"TensorRT-RTX {rtx} does not run on {have}",
            hint="install tensorrt for this Python, or use --engine inductor",
        )
    raise DeviceError(
        f"there is no TensorRT for {have} on this machine",
        hint="install tensorrt for this Python, or use --engine inductor",
    )


def device_like(
    facts: Mapping[str, Any], gpu: Mapping[str, Any], devices: Iterable[Device]
) -> Device | None:
    """The listed device of the same SM and kind of memory whose size is nearest, if it is near."""
    memory = facts["memory"]["total_bytes"] if gpu.get("integrated") else gpu["memory_bytes"]
    off = [
        (abs(device.memory_gib * (1 << 30) / memory - 1), device.id, device)
        for device in devices
        if gpu["sm"] in (device.sm, *device.sm_also)
        and facts["arch"] in device.arch
        and bool(device.memory_unified) == bool(gpu.get("integrated"))
        and device.memory_gib
        and memory
    ]
    nearest = min(off, default=None)
    return nearest[2] if nearest is not None and nearest[0] < _NEAR else None


def _stack_of(facts: Mapping[str, Any], stacks: Iterable[Stack]) -> Stack | None:
    """The JetPack of a Jetson."""
    jetpack = (facts.get("jetson") or {}).get("jetpack")
    return next((s for s in stacks if jetpack and s.id == f"jetpack-{jetpack}"), None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
