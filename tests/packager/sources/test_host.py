# SPDX-License-Identifier: Apache-2.0
"""A program that was exported on a GPU is built from on a machine that has none."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from trtpack.sources.host import onto_host

from .loading import load

CPU, GPU = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
"""How a pickle writes where a storage was."""


class Placed(nn.Module):
    """Has a parameter, a buffer and a constant, and makes tensors where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("shift", torch.arange(4.0))
        self.factor = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x: Tensor) -> Tensor:
        """x: float32[b, 4]."""
        rows = torch.arange(x.shape[0], device=x.device)
        return self.fc(x) * rows[:, None] + self.shift * self.factor


def _exported() -> torch.export.ExportedProgram:
    example = (torch.randn(3, 4),)
    return torch.export.export(Placed(), example, dynamic_shapes=({0: Dim("b", min=2, max=8)},))


def _as_of_a_gpu(file: bytes) -> bytes:
    """What the same program is as a file that was written where all of it was on a GPU."""

    def change(name: str, content: bytes) -> bytes:
        if name.endswith(".json"):
            return json.dumps(_placed(json.loads(content))).encode()
        return _storages_placed(content) if name.endswith("sample_inputs/model.pt") else content

    return _rewritten(file, change)


def _storages_placed(file: bytes) -> bytes:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        assert CPU in content
        return content.replace(CPU, GPU)

    return _rewritten(file, change)


def _rewritten(file: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive with the members that ``change`` makes of its own."""
    there = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as before, zipfile.ZipFile(there, "w") as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    return there.getvalue()


def _placed(value: Any) -> Any:
    if isinstance(value, list):
        return [_placed(v) for v in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "cpu":
        return {"type": "cuda", "index": 0}
    return {k: _placed(v) for k, v in value.items()}


def test_a_file_that_was_written_on_a_gpu_is_read_to_the_cpu(tmp_path: Path) -> None:
    program, file = _exported(), io.BytesIO()
    torch.export.save(program, file)
    path = tmp_path / "placed.pt2"
    path.write_bytes(_as_of_a_gpu(file.getvalue()))
    if not torch.cuda.is_available():
        with pytest.raises(AssertionError, match="CUDA"):
            torch.export.load(path)
    source = load(str(path))
    assert {t.device.type for t in source.module.state_dict().values()} == {"cpu"}
    ((example,), _) = source.args, source.kwargs
    want = program.module()(example)
    torch.testing.assert_close(source.run(((example,), {})), want)


def test_a_program_in_memory_that_names_a_gpu_is_copied_to_the_cpu() -> None:
    program = _exported()
    (made,) = (n for n in program.graph.nodes if n.target is torch.ops.aten.arange.default)
    made.update_kwarg("device", torch.device("cuda", 0))
    source = load(program)
    assert source.exported is not program
    x = torch.randn(5, 4)
    torch.testing.assert_close(source.run(((x,), {})), _run(program, x))
    assert made.kwargs["device"] == torch.device("cuda", 0), "the user's own stays as it was"


def _run(program: torch.export.ExportedProgram, x: Tensor) -> Tensor:
    model = Placed()
    model.load_state_dict(program.state_dict)
    answer: Tensor = model(x)
    return answer


def test_a_program_on_the_cpu_is_taken_as_it_is() -> None:
    program = _exported()
    assert load(program).exported is program


def test_other_files_are_read_to_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "tensor.pt"
    file = io.BytesIO()
    torch.save(torch.ones(2), file)
    path.write_bytes(_storages_placed(file.getvalue()))
    with onto_host():
        assert torch.load(path).device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path)
