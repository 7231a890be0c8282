# SPDX-License-Identifier: Apache-2.0
"""Stored programs of quantized models are read where what defines their operators is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trtpack.errors import SourceError
from trtpack.quantization.libraries import import_operators

Q = torch.ops.quantized_decomposed


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = Q.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
        return Q.dequantize_per_tensor(whole, 0.1, 0, -128, 127, torch.int8)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    import_operators(b'"target": "torch.ops.aten.relu.default"')
    with pytest.raises(SourceError, match="has operators of torchao") as raised:
        import_operators(b'"target": "torch.ops.torchao.dequantize_affine.default"')
    assert raised.value.hint == "install it here: pip install torchao"


@pytest.mark.slow
def test_a_program_is_read_in_a_fresh_interpreter(tmp_path: Path) -> None:
    __import__("torch.ao.quantization.fx._decomposed")
    path = tmp_path / "rounded.pt2"
    torch.export.save(torch.export.export(Rounded(), (torch.randn(4),)), path)
    code = f"""
from pathlib import Path
from trtpack.sources.exported import load_exported
print(load_exported(Path({str(path)!r})).module(__import__("torch").tensor([0.26, -99.0] * 2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[  0.3000, -12.8000,   0.3000, -12.8000]" in done.stdout
