# SPDX-License-Identifier: Apache-2.0
"""A device for each test, on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import devices
from .sshd import Server, serving


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Server]:
    """A device with a bare Python, on which nothing is left when the test is over."""
    with serving(tmp_path / "server") as server:
        yield server
        assert server.settled() == ["home", "tmp"]


@pytest.fixture
def whole(device: Server) -> Server:
    """A device with PyTorch."""
    devices.add_everything(device)
    return device
