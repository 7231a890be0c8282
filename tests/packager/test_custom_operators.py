# SPDX-License-Identifier: Apache-2.0
"""Which module an operator comes from, and builds where that is the script that builds."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from trtpack.custom_operators import providing_module
from trtpack_runtime.engines._inductor_build import build_in_child
from trtpack_runtime.errors import EngineBuildError

SCRIPT = """
import torch, trtpack

@torch.library.custom_op("own_script::half", mutates_args=())
def half(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5

@half.register_fake
def _(x):
    return torch.empty_like(x)

class Model(torch.nn.Linear):
    def forward(self, x):
        return half(super().forward(x)).relu()

torch.manual_seed(0)
model, x = Model(4, 4).eval(), torch.randn(2, 4)
with torch.no_grad():
    torch.testing.assert_close({compiled}(x), model(x))
"""


def half(x: Tensor) -> Tensor:
    return x * 0.5


half.__module__ = "__main__"
torch.library.custom_op("trtpack_main_tests::half", mutates_args=())(half)


@pytest.mark.parametrize(
    ("file", "run_as", "name"),
    [
        ("/home/me/shrink.py", None, "shrink"),
        ("/home/me/tools/shrink.py", "tools.shrink", "tools.shrink"),
        ("/home/me/my-model.py", None, "trtpack_main_tests"),
        ("<stdin>", None, "trtpack_main_tests"),
        (None, None, "trtpack_main_tests"),
    ],
)
def test_an_operator_of_the_running_script_comes_from_a_module_that_is_imported(
    file: str | None, run_as: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    if file is not None:
        main.__file__ = file
    main.__spec__ = ModuleSpec(run_as, None) if run_as else None
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert providing_module("trtpack_main_tests.half.default") == name
    assert sys.modules[name] is main


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiled",
    ['trtpack.compile(model, x, target="cpu")', 'torch.compile(model, backend="trtpack")'],
)
def test_a_script_that_would_build_for_ever_runs_in_pytorch(compiled: str, tmp_path: Path) -> None:
    script = tmp_path / "shrink.py"
    script.write_text(SCRIPT.replace("{compiled}", compiled), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": the module of an operator builds as it is imported") == 1


def test_a_module_that_ends_as_it_is_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quits.py").write_text("raise SystemExit('wants arguments')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineBuildError, match="AOTInductor failed: SystemExit: wants arguments"):
        build_in_child({}, [], [], tmp_path / "out.pt2", imports=["quits"])
