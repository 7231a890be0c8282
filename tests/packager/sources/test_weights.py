# SPDX-License-Identifier: Apache-2.0
"""Weights from files, without running code from them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .loading import Trap, load, refused, save, two


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_replace_parameters_and_buffers(tmp_path: Path, suffix: str) -> None:
    trained = {n: torch.rand_like(t.float()).to(t.dtype) for n, t in two().state_dict().items()}
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save(path, **trained)
    else:
        torch.save(trained, path)
    source = load(two(), "1x3", weights=path)
    for name, value in source.module.state_dict().items():
        assert torch.equal(value, trained[name]), name


@pytest.mark.slow
def test_safetensors_weights_stay_mapped(tmp_path: Path) -> None:
    """Anonymous memory grows by much less than the weights."""
    path = save(tmp_path / "w.safetensors", weight=torch.zeros(4096, 4096))
    script = f"""
    import torch
    from pathlib import Path
    from torch import nn
    from trtpack.sources import load_source
    from trtpack.inputs import parse_inputs

    def anonymous():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

    module = nn.Linear(4096, 4096, bias=False, device="meta").to_empty(device="cpu")
    before = anonymous()
    source = load_source(
        module, weights=Path({str(path)!r}), inputs=parse_inputs(["1x4096"])
    )
    float(source.module.weight.sum())
    print(anonymous() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 32  # MiB; the weights are 64


def test_a_wrapped_state_dict_is_found_and_said(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in two().state_dict().items()}}, path
    )
    notes = load(two(), "1x3", weights=path).notes
    assert notes == (
        "w.pt: weights read from its entry 'state_dict'",
        "w.pt: names read without their prefix 'module.'",
    )


def test_tied_parameters_stay_tied(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    path = save(tmp_path / "w.safetensors", **{"0.weight": torch.full((3, 3), 5.0)})
    module = load(model, "1x3", weights=path).module
    assert module[0].weight is module[1].weight  # type: ignore[index]  # a Sequential
    assert float(module[1].weight[0, 0]) == 5  # type: ignore[index]  # a Sequential


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None, "extra": torch.ones(1)}, "1 missing (0.weight); 1 unexpected (extra)"),
        ({f"e{i}": torch.ones(1) for i in range(6)}, "6 unexpected (e0, e1, e2, e3 and 2 more)"),
        ({"0.weight": torch.ones(4, 5)}, "0.weight has the shape 4x5, the model wants 4x3"),
    ],
)
def test_says_how_weights_do_not_fit(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = {**two().state_dict(), **change}
    path = tmp_path / "w.pt"
    torch.save({n: t for n, t in state.items() if t is not None}, path)
    assert message in refused(two(), "1x3", weights=path).message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Trap(), "holds more than tensors"),
        ({"epoch": 3}, "holds no state dict, but a dict of epoch"),
        (torch.ones(3), "holds no state dict, but a Tensor"),
        (None, "cannot read"),
    ],
)
def test_says_what_is_wrong_with_a_weights_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    if content is None:
        path.write_bytes(b"not a checkpoint")
    else:
        torch.save(content, path)
    assert message in refused(two(), "1x3", weights=path).message
    assert not (tmp_path / "sprung").exists()


def test_weights_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    assert "there is no weights file" in refused(two(), "1x3", weights=tmp_path / "w.pt").message
    path = tmp_path / "w.onnx"
    path.touch()
    assert "cannot read weights" in refused(two(), "1x3", weights=path).message
