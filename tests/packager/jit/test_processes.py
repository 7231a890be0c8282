# SPDX-License-Identifier: Apache-2.0
"""The backend in processes of its own: how it is found, and what a second one need not build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMPILES = """
import logging, torch
torch.manual_seed(0)
model, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval(), torch.ones(2, 4)
logging.basicConfig(level=logging.INFO)
options = {"engine": "inductor", "strict": True}
with torch.no_grad():
    compiled = torch.compile(model, backend="trtpack", options=options)
    torch.testing.assert_close(compiled(x), model(x))
"""

WITHOUT_ENTRY_POINTS = """
import importlib.metadata
importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints(())
"""
FOUND = "; assert 'trtpack' in torch.compiler.list_backends()"


def run(code: str, store: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(store)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_second_process_loads_what_the_first_built(tmp_path: Path) -> None:
    assert "comes from the cache" not in run(COMPILES, tmp_path)
    assert run(COMPILES, tmp_path).count("comes from the cache") == 1


@pytest.mark.parametrize(
    "code",
    [
        "import torch" + FOUND,
        WITHOUT_ENTRY_POINTS + "import trtpack, torch" + FOUND,
        WITHOUT_ENTRY_POINTS + "import torch._dynamo.backends.registry, trtpack, torch" + FOUND,
        "import trtpack, torch; torch.compile(torch.relu, backend='trtpack')",
        "import torch" + FOUND + "; import trtpack; torch.compile(torch.relu, backend='trtpack')",
    ],
)
def test_the_backend_is_found_by_its_entry_point_or_by_importing_trtpack(
    code: str, tmp_path: Path
) -> None:
    run(code, tmp_path)
