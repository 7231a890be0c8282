# SPDX-License-Identifier: Apache-2.0
"""Models that are already captured: the ``.pt2`` files of ``torch.export.save``."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import SourceError
from ..options import DynamicDim, InputSpec, SizeRange
from ..quantization.libraries import import_operators
from .host import on_host, onto_host
from .loaded import Loaded

_CODE = ("custom_obj_", "opaque_obj_")
_UNBOUNDED = 1 << 16


def load_exported(path: Path) -> Loaded:
    """Reads an exported program; only tensors are unpickled, custom objects are refused.

    Raises:
        SourceError: no such file, another kind of file, a broken one, one that carries objects.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}", hint="check the path of MODEL")
    hint = "write it with torch.export.save(torch.export.export(model, args), path)"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            program = b"".join(archive.read(n) for n in names if n.endswith(".json"))
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is not an exported program", hint=hint) from error
    if not any("/models/" in n or n.endswith("serialized_exported_program.json") for n in names):
        kind = (
            "an AOTInductor package" if any("aotinductor" in n for n in names) else "something else"
        )
        raise SourceError(f"{path} is not an exported program but {kind}", hint=hint)
    if any(Path(n).name.startswith(_CODE) for n in names):
        raise SourceError(
            f"{path} carries pickled objects, which are not loaded",
            hint="export a model without custom class objects",
        )
    import_operators(program)
    try:
        with _tensors_only(), onto_host():
            exported = torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} carries pickled objects, which are not loaded",
            hint="export a model whose inputs and constants are tensors",
        ) from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"cannot read {path}: {reason[:300]}", hint=hint) from error
    return from_program(exported, path.stem)


def from_program(exported: torch.export.ExportedProgram, name: str) -> Loaded:
    """An exported program, on the CPU, with the inputs it was exported with."""
    exported = on_host(exported)
    examples = exported.example_inputs
    call = (tuple(examples[0]), dict(examples[1])) if examples else None
    module = exported.module(check_guards=False)
    inputs = () if call else input_specs(exported)
    return Loaded(name, module, call, inputs, exported=exported)


def input_specs(exported: torch.export.ExportedProgram) -> tuple[InputSpec, ...]:
    """The user's tensor inputs as the graph declares them."""
    users = set(exported.graph_signature.user_inputs)
    return tuple(
        InputSpec(
            None,
            tuple(_dim(size, exported) for size in node.meta["val"].shape),
            str(node.meta["val"].dtype).removeprefix("torch."),
        )
        for node in exported.graph.nodes
        if node.op == "placeholder"
        and node.name in users
        and isinstance(node.meta["val"], torch.Tensor)
    )


def _dim(size: Any, exported: torch.export.ExportedProgram) -> int | DynamicDim:
    if isinstance(size, int):
        return size
    limits = exported.range_constraints.get(size.node.expr)
    low = max(int(limits.lower), 1) if limits is not None else 1
    high = int(limits.upper) if limits is not None and limits.upper < _UNBOUNDED else _UNBOUNDED
    hint = size.node.hint if size.node.has_hint() else low
    return DynamicDim(SizeRange(low, min(max(int(hint), low), high), high), str(size.node.expr))


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch falls back to a full unpickle where a tensor file holds more; this forbids it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
