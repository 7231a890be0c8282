# SPDX-License-Identifier: Apache-2.0
"""``trtpack doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from ..device import DeviceFacts, installed, look
from ..engines import tensorrt, tensorrt_rtx
from ..gpus import Gpu
from ..machine_state import GpuState, MachineState, StoreState, state_of
from .text import columns, mark, plural, size

EXAMPLES = """\b
Examples:
  trtpack doctor
  trtpack doctor --json > orin.json      # for trtpack resolve --facts orin.json, anywhere
"""

Row = tuple[bool | None, str, str]
"""Good, missing or merely noted; what it is; what was found."""


@click.command(epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, and what that means for running bundles.

    Looks at the system, the GPU's driver and what is installed. Nothing is changed, and neither
    PyTorch nor TensorRT is imported.
    """
    facts = look()
    state = state_of(facts)
    if as_json:
        told = facts.to_json() | {"now": state.to_json()}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    click.echo("This machine")
    click.echo(columns((mark(good), what, found) for good, what, found in rows(facts, state)))
    click.echo("\nFor bundles that means")
    click.echo(columns((mark(good), text) for good, text in conclusions(facts)))


def rows(facts: DeviceFacts, state: MachineState) -> Iterator[Row]:
    """The facts, one a line."""
    yield None, "system", f"{facts.os_release}, {facts.os} {facts.kernel}, {facts.arch}"
    if facts.jetson is not None:
        jetson = facts.jetson
        jetpack = f"JetPack {jetson.jetpack}" if jetson.jetpack else "a JetPack unknown here"
        mode = f", power mode {jetson.power_mode}" if jetson.power_mode else ""
        yield None, "jetson", f"{jetson.model or 'unnamed'}, {jetpack} (L4T {jetson.l4t}){mode}"
    now = {gpu.index: gpu for gpu in state.gpus}
    for gpu in facts.gpus:
        yield True, f"gpu {gpu.index}" if len(facts.gpus) > 1 else "gpu", _gpu(gpu, now)
    if not facts.gpus:
        yield False, "gpu", facts.problems[0] if facts.problems else "no NVIDIA GPU"
    if facts.driver is not None:
        versions = (("", facts.driver.version), ("CUDA ", facts.driver.cuda))
        found = ", up to ".join(f"{label}{v}" for label, v in versions if v)
        yield True, "driver", found or "of unknown version"
    free, total = size(facts.memory.available_bytes), size(facts.memory.total_bytes)
    yield None, "memory", f"{free} of {total} free; {facts.cpu.model}, {facts.cpu.count} usable"
    yield None, "python", f"{facts.python}, {facts.libc}, trtpack-runtime {facts.runtime}"
    cuda = f", for CUDA {facts.torch_cuda}" if facts.torch_cuda else ", for the CPU"
    yield facts.torch is not None, "torch", f"{facts.torch}{cuda}" if facts.torch else "none"
    yield from _tensorrts(facts, state)
    if installed("trtpack") is not None:  # only a host compiles
        compiler = facts.compiler
        found = f"{compiler.path} {compiler.version}" if compiler else "no g++ or clang++"
        yield compiler is not None, "compiler", found
    yield state.store.writable, "store", _store(state.store)


def conclusions(facts: DeviceFacts) -> Iterator[tuple[bool, str]]:
    """What the facts mean for running bundles."""
    yield from _engines(facts)
    if facts.torch is None:
        engines = bool(facts.gpus and facts.tensorrt)
        if engines and facts.cuda_bindings:
            yield True, "without PyTorch, bundles run whose engines do everything (Session)"
        else:
            more = ", or cuda-bindings for bundles whose engines do everything" if engines else ""
            yield False, f"nothing can be run: install PyTorch{more}"
        return
    reason = on_cpu(facts)
    place = "on the CPU" if reason else "on the GPU"
    if reason and facts.gpus:
        place += f": {reason}"
    yield True, f"what has no engine runs in PyTorch {facts.torch}, {place}"
    if installed("trtpack") is not None and facts.compiler is None:
        yield False, "no segment can be compiled for this CPU; one compiled elsewhere needs --trust"


def _engines(facts: DeviceFacts) -> Iterator[tuple[bool, str]]:
    """Whether engines of TensorRT and TensorRT-RTX run."""
    if not facts.gpus:
        reason = facts.problems[0] if facts.problems else "no NVIDIA GPU"
        yield False, f"no TensorRT engine runs: {reason}"
        return
    sms = ", ".join(dict.fromkeys(gpu.sm for gpu in facts.gpus))
    if facts.tensorrt:
        reason = tensorrt.can_build(facts.to_json()) or ""
        good = f"engines of TensorRT {facts.tensorrt} for sm {sms} run, others are built here"
        yield not reason, f"no TensorRT engine runs: {reason}" if reason else good
    if facts.tensorrt_rtx:
        fits = facts.gpus[0].sm in tensorrt_rtx.CAPABILITIES
        told = f"engines of TensorRT-RTX {facts.tensorrt_rtx} for sm {sms} run"
        yield fits, told if fits else f"TensorRT-RTX does not run on {facts.gpus[0].name}"
    if not facts.tensorrt and not facts.tensorrt_rtx:
        hint = "install tensorrt"
        if facts.jetson is not None:
            hint = "make the venv with --system-site-packages, so that it finds JetPack's tensorrt"
        yield False, f"no TensorRT engine runs: {hint}"


def on_cpu(facts: DeviceFacts) -> str | None:
    """Why PyTorch computes on the CPU here; None where it can use the GPU."""
    if not facts.gpus:
        return "there is no GPU"
    if facts.torch_cuda is None:
        return "this PyTorch is built without CUDA"
    serves = facts.driver.cuda if facts.driver else None
    if serves and _major(serves) < _major(facts.torch_cuda):
        return f"this PyTorch needs CUDA {facts.torch_cuda}, the driver serves {serves}"
    return None


def _gpu(gpu: Gpu, now: dict[int, GpuState]) -> str:
    parts = [gpu.name, f"sm {gpu.sm}"]
    parts.append("shared memory" if gpu.integrated else size(gpu.memory_bytes))
    state = now.get(gpu.index)
    if state is not None:
        if state.free_bytes is not None:
            parts[-1] = f"{size(state.free_bytes)} of {parts[-1]} free"
        clock, most = state.readings.get("sm_mhz"), state.readings.get("sm_max_mhz")
        if clock is not None:
            parts.append(f"{clock:.0f} of {most:.0f} MHz" if most else f"{clock:.0f} MHz")
        if (degrees := state.readings.get("temperature_c")) is not None:
            parts.append(f"{degrees:.0f} °C")
        parts += [f"slowed by {reason}" for reason in state.throttled]
    return ", ".join(parts)


def _tensorrts(facts: DeviceFacts, state: MachineState) -> Iterator[Row]:
    """What is used of each module, and what lies beside it."""
    for what, version in (("tensorrt", facts.tensorrt), ("tensorrt_rtx", facts.tensorrt_rtx)):
        if version is None and (what == "tensorrt_rtx" or facts.tensorrt_rtx):
            continue  # one of both is what a machine has
        others = {f.version for f in state.tensorrts if f.what == what} - {version}
        beside = f"; not used: {', '.join(sorted(others))}" if version and others else ""
        yield version is not None, what, (version or _lone_library(state)) + beside


def _lone_library(state: MachineState) -> str:
    """What to say where there is no module: there may be the library without it."""
    found = [f.version for f in state.tensorrts if f.what == "libnvinfer"]
    return f"none for this Python, though libnvinfer {found[-1]} is there" if found else "none"


def _store(store: StoreState) -> str:
    room = "" if store.free_bytes is None else f", {size(store.free_bytes)} free on its disk"
    taken = f"{size(store.engine_bytes)} of {size(store.limit_bytes)} allowed"
    kept = f"{plural(store.engines, 'engine')}, {taken}{room}, in {_home(store.folder)}"
    if not store.writable:
        return f"cannot be written, engines are built again at each start; {kept}"
    spare = f"; {_home(store.home)} is read-only" if store.folder != store.home else ""
    return kept + spare


def _home(folder: str) -> str:
    """A folder of the user as people write it."""
    try:
        return f"~/{Path(folder).relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return folder


def _major(version: str) -> int:
    return int(version.partition(".")[0])
