# SPDX-License-Identifier: Apache-2.0
"""A session imports no torch: a bare interpreter in which torch cannot be imported runs one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import atexit, json, sys
from pathlib import Path
sys.modules["torch"] = None
sys.path.insert(0, {root!r})
import pytest
from tests.runtime.session.bundles import machine, write
from tests.runtime.session.nets import CHAIN, NETS, some
from tests.runtime.session.test_smoke_numpy import golden
import trtpack_runtime

atexit.register(lambda: print(json.dumps([cuda.leaked(), cuda.wrong])))
patch = pytest.MonkeyPatch()
cuda, _ = machine(patch, NETS)
x = some()
made = golden(CHAIN, input_0=x, output_0=5 * x, output_1=(5 * x).mean(1), output_2=x)
path = write(Path({folder!r}) / "b.tar", NETS, {{"forward": made}})
session = trtpack_runtime.Session(path)
for _ in range(4):
    assert (session.run({{"x": x}})["sum"] == 5 * x).all()
assert session.smoke().passed
assert session.run_async([x]).result()["same"].shape == (2, 3)
{end}
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "torch"]))
"""


@pytest.mark.parametrize("end", ["session.close()", "pass"])
def test_nothing_of_it_imports_torch(tmp_path: Path, end: str) -> None:
    """Nor does it need to be closed: what is left when the interpreter ends is given back."""
    script = SCRIPT.format(root=str(ROOT), folder=str(tmp_path), end=end)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded, left = map(json.loads, done.stdout.splitlines())
    assert loaded == ["torch"], "the entry that forbids it"
    assert left == [[], []]
