# SPDX-License-Identifier: Apache-2.0
"""Reads exported programs to the CPU, whatever device they were exported on.

Models are captured and lowered there, and a host needs no GPU. PyTorch reads a program to the
devices that its file names, and fails where there is none.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree

_FIRST = 1
"""Before the devices of PyTorch, which begin with 10."""
_wanted: ContextVar[bool] = ContextVar("onto_host", default=False)


@contextmanager
def onto_host() -> Iterator[None]:
    """Within the block, what ``torch.export.load`` reads is on the CPU."""
    from torch._export.serde import serialize
    from torch.export.pt2_archive import _package

    _take_storages()
    with ExitStack() as stack:
        for module in (serialize, _package):  # each has its own name for it
            stack.enter_context(mock.patch.object(module, "deserialize_device", _device))
        token = _wanted.set(True)
        try:
            yield
        finally:
            _wanted.reset(token)


def on_host(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program itself if it is on the CPU, else a copy that is."""
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    tensors += pytree.tree_leaves(exported.example_inputs)
    nodes = (node for part in _graphs(exported) for node in part.graph.nodes)
    devices = [d for n in nodes for d in pytree.tree_leaves((n.args, n.kwargs)) if _is_other(d)]
    if not devices and not any(_is_other(getattr(t, "device", None)) for t in tensors):
        return exported
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    with onto_host():
        return torch.export.load(file)


def _graphs(exported: torch.export.ExportedProgram) -> Iterator[torch.fx.GraphModule]:
    modules = exported.graph_module.modules()
    yield from (module for module in modules if isinstance(module, torch.fx.GraphModule))


def _is_other(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type not in ("cpu", "meta")


def _device(named: Any) -> torch.device:
    """The device that takes the place of one that a file names."""
    return torch.device("meta" if named.type == "meta" else "cpu")


@functools.cache
def _take_storages() -> None:
    """Has PyTorch ask us first where a pickled storage belongs; only within ``onto_host`` we say:
    where it was read, which is the CPU."""
    torch.serialization.register_package(
        _FIRST, lambda storage: None, lambda storage, place: storage if _wanted.get() else None
    )
