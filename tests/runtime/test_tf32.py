# SPDX-License-Identifier: Apache-2.0
"""Full float32 for a while, however a program said what PyTorch may round."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

NEWER = hasattr(getattr(torch.backends.cudnn, "conv", None), "fp32_precision")
since_2_9 = pytest.mark.skipif(not NEWER, reason="a precision for each kind came with PyTorch 2.9")

PROGRAM = """
import torch
from trtpack_runtime.tf32 import convolves_in_tf32, cudnn_told, full_float32

backends = torch.backends
newer = {newer}
parts = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul] if newer else []
parts += [backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul] if newer else []

def told(ask):
    try:
        return ask()
    except RuntimeError:
        return "not told"

def state():
    kinds = [part.fp32_precision for part in parts]
    older = (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32)
    return [told(ask) for ask in older], [*kinds, backends.mkldnn.enabled]

def same(one, other):
    pairs = zip(one[0], other[0])
    return one[1] == other[1] and all(a == b or a == "not told" for a, b in pairs)

{said}
before, rounds = state(), convolves_in_tf32()
for _ in range(2):
    with full_float32():
        assert not convolves_in_tf32()
        assert state()[0] == ["highest", False]
        assert {{part.fp32_precision for part in parts}} <= {{"ieee", "none"}}
        with full_float32():
            pass
        assert state()[0] == ["highest", False]
    assert same(before, state()), (before, state())
    with cudnn_told():
        assert backends.cudnn.allow_tf32 is rounds is convolves_in_tf32()
    assert same(before, state()), (before, state())
try:
    with full_float32():
        1 / 0
except ZeroDivisionError:
    assert same(before, state())
print(rounds)
"""


@pytest.mark.parametrize(
    ("said", "rounds"),
    [
        ("", True),
        ("backends.cudnn.allow_tf32 = False", False),
        ("backends.cuda.matmul.allow_tf32 = True", True),
        ("torch.set_float32_matmul_precision('high')", True),
        ("torch.set_float32_matmul_precision('medium')", True),
        pytest.param("backends.cudnn.conv.fp32_precision = 'ieee'", False, marks=since_2_9),
        pytest.param("backends.cudnn.rnn.fp32_precision = 'ieee'", True, marks=since_2_9),
        pytest.param("backends.mkldnn.conv.fp32_precision = 'bf16'", True, marks=since_2_9),
        pytest.param("backends.cuda.matmul.fp32_precision = 'tf32'", True, marks=since_2_9),
        pytest.param("backends.fp32_precision = 'ieee'", False, marks=since_2_9),
        pytest.param("backends.fp32_precision = 'tf32'", True, marks=since_2_9),
        pytest.param(
            "torch.set_float32_matmul_precision('medium'); backends.cuda.matmul.allow_tf32 = False",
            True,
            marks=since_2_9,
        ),
    ],
)
def test_what_a_program_said_holds_again_afterwards(said: str, rounds: bool) -> None:
    assert printed(PROGRAM.format(said=said, newer=NEWER)) == str(rounds)


def test_pytorch_is_not_imported_to_ask() -> None:
    asked = "from trtpack_runtime.tf32 import convolves_in_tf32 as asked"
    assert printed(f"import sys; {asked}; print(asked(), 'torch' in sys.modules)") == "True False"


def printed(program: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
