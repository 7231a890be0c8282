# SPDX-License-Identifier: Apache-2.0
"""A device with stores of its own, an H200, and what builds there; it is read without torch too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.runtime.finishing.builds import Builds
    from trtpack_runtime.bundle import Bundle
    from trtpack_runtime.engines import LoadContext


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores and ledger of their own."""
    from trtpack_runtime import store_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(store_folder, "SPARE_PARENTS", ())


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    from tests.runtime.finishing.builds import Builds
    from trtpack_runtime.engines import tensorrt

    fake = Builds()
    monkeypatch.setattr(tensorrt, "build", fake)
    return fake


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    from tests.runtime import deferred
    from trtpack_runtime.bundle import open_bundle

    return open_bundle(deferred.write(tmp_path / "bundle.tar", variants=("h200",)))


@pytest.fixture
def on_h200(monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadContext]:
    """Loads as on an H200; the engines are evaluated, and each one's context kept by segment."""
    from tests.runtime.finishing.builds import evaluated

    return evaluated(monkeypatch)
