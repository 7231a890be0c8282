# SPDX-License-Identifier: Apache-2.0
"""One thread a test process; the runtime's tests run where there is no torch too."""

from __future__ import annotations

import gc
import importlib.util
import operator
import os
import random
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests import torch_export

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes would fight for the cores otherwise
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # whoever starts the tests in the background has them ignore the Ctrl-C that some send
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HAS_TORCH = importlib.util.find_spec("torch") is not None
_ABSENT = ("No module named 'torch'", "No module named 'trtpack'")


class _ModuleWithoutTorch(pytest.Module):
    """A test file that is skipped if it, or what it imports, needs torch or the packager."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            if any(absent in str(error) for absent in _ABSENT):
                pytest.skip("needs torch", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if _HAS_TORCH:
        return None
    return _ModuleWithoutTorch.from_parent(parent, path=module_path)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers for a test whichever ran before it."""
    random.seed(0)
    for name, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            operator.attrgetter(seed)(sys.modules[name])(0)


def pytest_collection_finish() -> None:
    """Leaves what is imported by now out of every later garbage collection: it stays anyway, and
    looking at all of it takes longer than most tests. What ``torch.export`` looks up likewise."""
    if "torch.export.exported_program" in sys.modules:
        torch_export.look_up_once()
    gc.collect()
    gc.freeze()
