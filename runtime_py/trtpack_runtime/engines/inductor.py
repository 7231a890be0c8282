# SPDX-License-Identifier: Apache-2.0
"""AOTInductor: an ATen segment compiled ahead of time to a shared library.

The weights stay outside the library: it reads them where the bundle is mapped (only vectors of a
few numbers become part of its code). The library belongs to one PyTorch release, one operating
system and a set of CPU instructions: its record names them.
The packager compiles it, in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.device import cpu
from trtpack_runtime.errors import BundleError, InternalError

from . import LoadContext, Runner, Verdict

if TYPE_CHECKING:
    import torch

MODEL_NAME = "model"
_FLAGS = (
    *("sse", "avx", "fma", "f16c", "bmi", "abm", "movbe", "popcnt", "amx"),
    *("sve", "asimd", "bf16", "i8mm"),
)
"""How the instruction sets that compilers use are called by Linux, x86 and Arm."""


def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """Fits a machine with the same PyTorch release, system and at least the same instructions."""
    has = facts.get("torch")
    if not has:
        return Verdict("impossible", "PyTorch is not installed")
    for what in ("os", "arch"):
        if record[what] != facts[what]:
            return Verdict("rebuild", f"built for {record[what]}, this machine is {facts[what]}")
    if release(record["torch"]) != release(has):
        return Verdict(
            "rebuild", f"built for PyTorch {release(record['torch'])}, this machine has {has}"
        )
    lacking = sorted(set(record["cpu_flags"]) - set(facts["cpu"]["flags"]))
    if lacking:
        some = ", ".join(lacking[:3]) + (" and more" if len(lacking) > 3 else "")
        return Verdict("rebuild", f"uses CPU instructions this machine lacks: {some}")
    return Verdict("exact", f"built for PyTorch {release(has)} on {facts['arch']}")


def load(blob: memoryview | Path | None, context: LoadContext) -> Runner:
    """Loads the library and points it at the mapped weights."""
    graph = context.segment.graph
    if graph is None or blob is None:
        raise InternalError(f"segment {context.segment.name} is no compiled ATen segment")
    if context.device.type != "cpu":
        raise BundleError(
            f"segment {context.segment.name} is compiled for the CPU, not for {context.device}",
            hint="load the bundle with device='cpu'",
        )
    loader = _open(blob, context.segment.name)
    names = constant_names(graph)
    stored = {short: name for name, short in names.items()}
    constants = {
        short: context.constants[stored[short]].detach() for short in loader.get_constant_fqns()
    }
    loader.load_constants(constants, False, True, True)

    def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        # compiled for the contiguous examples; the library does not look at strides
        return list(loader.run([tensor.detach().contiguous() for tensor in inputs]))

    # the library keeps only addresses
    run.keeps_alive = constants  # type: ignore[attr-defined]
    return run


def constant_names(graph: Mapping[str, Any]) -> dict[str, str]:
    """Stored tensor name -> the short name the library knows it by, in order of first use."""
    names: dict[str, str] = {}

    def visit(value: Any) -> None:
        match value:
            case {"constant": str(name)}:
                names.setdefault(name, f"c{len(names)}")
            case {"list": list(items)} | list(items):
                for item in items:
                    visit(item)

    for node in graph["nodes"]:
        visit(node["args"])
        visit([node["kwargs"][key] for key in sorted(node["kwargs"])])
    visit(list(graph["outputs"]))
    return names


def release(version: str) -> str:
    """``2.6.0`` of ``2.6.0+cpu``."""
    return version.partition("+")[0]


def _open(blob: memoryview | Path, segment: str) -> Any:
    import torch

    loader = torch._C._aoti.AOTIModelPackageLoader
    try:
        if isinstance(blob, Path):
            return loader(str(blob.absolute()), MODEL_NAME, False, 1, -1)
        with tempfile.TemporaryDirectory(prefix="trtpack-") as folder:
            path = Path(folder) / "segment.pt2"
            path.write_bytes(blob)
            return loader(str(path), MODEL_NAME, False, 1, -1)
    except RuntimeError as error:
        raise BundleError(
            f"cannot load the compiled segment {segment}: {str(error).splitlines()[0]}",
            hint="build the bundle again on this machine",
        ) from error


def cpu_flags() -> list[str]:
    """The instruction sets of this machine's CPU that a compiler makes use of."""
    return [flag for flag in cpu().flags if flag.startswith(_FLAGS)]
