# SPDX-License-Identifier: Apache-2.0
"""``trtpack doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from ..device import DeviceFacts, look
from ..engines import engine
from ..errors import BundleError
from .text import columns, mark, size

EXAMPLES = """\b
Examples:
  trtpack doctor
  trtpack doctor --json > facts.json
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
    if as_json:
        click.echo(json.dumps(facts.to_json(), indent=2, ensure_ascii=False))
        return
    click.echo("This machine")
    click.echo(columns((mark(good), what, found) for good, what, found in rows(facts)))
    click.echo("\nFor bundles that means")
    click.echo(columns((mark(good), text) for good, text in conclusions(facts)))


def rows(facts: DeviceFacts) -> Iterator[Row]:
    """The facts, one a line."""
    yield None, "system", f"{facts.os_release}, {facts.os} {facts.kernel}, {facts.arch}"
    yield None, "python", f"{facts.python}, {facts.libc}, trtpack-runtime {facts.runtime}"
    yield None, "processor", f"{facts.cpu.model}, {facts.cpu.count} usable"
    free, total = size(facts.memory.available_bytes), size(facts.memory.total_bytes)
    yield None, "memory", f"{total}, {free} available"
    if facts.jetson is not None:
        jetson = facts.jetson
        jetpack = f"JetPack {jetson.jetpack}" if jetson.jetpack else "a JetPack unknown here"
        mode = f", power mode {jetson.power_mode}" if jetson.power_mode else ""
        yield None, "jetson", f"{jetson.model or 'unnamed'}, {jetpack} (L4T {jetson.l4t}){mode}"
    for gpu in facts.gpus:
        memory = "shared memory" if gpu.integrated else size(gpu.memory_bytes)
        yield True, f"gpu {gpu.index}", f"{gpu.name}, sm {gpu.sm}, {memory}"
    if not facts.gpus:
        yield False, "gpu", facts.problems[0] if facts.problems else "no NVIDIA GPU"
    if facts.driver is not None:
        versions = (("", facts.driver.version), ("CUDA ", facts.driver.cuda))
        found = ", up to ".join(f"{label}{v}" for label, v in versions if v)
        yield True, "driver", found or "of unknown version"
    for name, version in (
        ("torch", facts.torch),
        ("tensorrt", facts.tensorrt),
        ("tensorrt_rtx", facts.tensorrt_rtx),
    ):
        yield version is not None, name, version or "not installed"
    compiler = facts.compiler
    found = f"{compiler.path} {compiler.version}" if compiler else "no g++ or clang++"
    yield compiler is not None, "compiler", found


def conclusions(facts: DeviceFacts) -> Iterator[tuple[bool, str]]:
    """What the facts mean for running bundles."""
    yield True, "bundles can be inspected and verified"
    if facts.torch is None:
        yield False, "they cannot be run: install PyTorch"
        return
    yield True, f"they can be run: PyTorch {facts.torch} can run every segment"
    if facts.gpus:
        yield from _with_gpu(facts)
    else:
        reason = facts.problems[0] if facts.problems else "no NVIDIA GPU"
        yield False, f"{reason}: segments run by inductor or reference, on the CPU"
    if facts.compiler is None:
        yield False, "no segment can be compiled for this CPU; one compiled elsewhere needs --trust"
    else:
        yield True, "segments can be compiled for this CPU (inductor)"


def _with_gpu(facts: DeviceFacts) -> Iterator[tuple[bool, str]]:
    sms = ", ".join(dict.fromkeys(gpu.sm for gpu in facts.gpus))
    for kind, title, version in (
        ("tensorrt", "TensorRT", facts.tensorrt),
        ("tensorrt-rtx", "TensorRT-RTX", facts.tensorrt_rtx),
    ):
        if version and _loads(kind):
            yield True, f"{title} engines for sm {sms} run: version {version}"
        elif version:
            yield False, f"no {title} engine runs: this trtpack-runtime only builds or checks them"
    if not facts.tensorrt and not facts.tensorrt_rtx:
        hint = "install tensorrt"
        if facts.jetson is not None:
            hint = "make the venv with --system-site-packages, so that it finds JetPack's tensorrt"
        yield False, f"no TensorRT engine runs: {hint}"


def _loads(kind: str) -> bool:
    """Whether this runtime can load engines of a kind at all."""
    try:
        return callable(getattr(engine(kind), "load", None))
    except BundleError:
        return False
