# SPDX-License-Identifier: Apache-2.0
"""A machine of doubles, and bundles on it; what is left on the GPU fails a test."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.session.bundles import Made, machine, write
from tests.runtime.session.cuda_double import CudaDouble
from tests.runtime.session.trt_double import Net, TrtDouble
from trtpack_runtime.session import Session

Open = Callable[..., Session]


class Lab:
    """Opens sessions on a machine of doubles; ``cuda`` and ``trt`` are those of the last."""

    trt: TrtDouble

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self._sessions: list[Session] = []
        self._count, self.cuda = 0, CudaDouble()

    def bundle(self, nets: Mapping[str, Net], methods: Mapping[str, Made], **rest: Any) -> Path:
        """A bundle of its own."""
        self._count += 1
        return write(self._folder / f"{self._count}.tar", nets, methods, **rest)

    def machine(self, nets: Mapping[str, Net], **options: Any) -> None:
        """Makes this an Orin with engines that compute these nets."""
        self.cuda, self.trt = machine(self._monkeypatch, nets, **options)

    def session(
        self,
        nets: Mapping[str, Net],
        made: Made | Mapping[str, Made],
        *,
        states: Mapping[str, Any] | None = None,
        stored: Mapping[str, Any] | None = None,
        narrow: bool = False,
        **options: Any,
    ) -> Session:
        """A session over a bundle of these segments."""
        self.machine(nets, narrow=narrow)
        return self.session_on(nets, made, states=states, stored=stored, **options)

    def session_on(
        self,
        nets: Mapping[str, Net],
        made: Made | Mapping[str, Made],
        *,
        states: Mapping[str, Any] | None = None,
        stored: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Session:
        """A session on the machine there is."""
        methods = {"forward": made} if isinstance(made, Made) else made
        path = self.bundle(nets, methods, states=states, stored=stored)
        return self.kept(Session(path, **options))

    def kept(self, session: Session) -> Session:
        """A session that is closed when the test is over."""
        self._sessions.append(session)
        return session

    def end(self) -> None:
        """Closes every session and looks at what is left."""
        while self._sessions:
            self._sessions.pop().close()
        if self.cuda.leaked():
            gc.collect()  # an error's traceback may hold a session
        assert (self.cuda.leaked(), self.cuda.wrong) == ([], [])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(tmp_path, monkeypatch)
    yield made
    made.end()
