# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster as this host sees it: its workers, tasks sent to them, what those tell."""

from __future__ import annotations

import json
import logging
import queue
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from trtpack_runtime.device import installed
from trtpack_runtime.farm import ABOUT, TOPIC
from trtpack_runtime.farm.engines import build_engines
from trtpack_runtime.farm.serving import reach, told_of

from ..errors import ConfigError
from .targets import FarmWorker, Fit

if TYPE_CHECKING:
    from distributed import Client, Future

ONE_RELEASE = "install one release everywhere"
_CONNECTING_S = 10.0
_LOOKING_S = 1.0
_GONE_S = 10.0
"""For so long a scheduler may not answer before it is given up."""


@dataclass(frozen=True)
class Task:
    """Engines that a worker builds; ``bundle`` is what it builds them of, held by a worker."""

    future: Future[Any]
    bundle: Future[Any]

    @property
    def status(self) -> str:
        """Dask's word: ``pending``, ``finished``, ``error``; ``cancelled`` or ``lost`` where the
        worker died that had the bundle."""
        return str(self.future.status)

    @property
    def answer(self) -> Mapping[str, Any]:
        """What ``build_engines`` answered; raises what Dask says of workers that died."""
        return dict(self.future.result(timeout=_CONNECTING_S))

    def forget(self) -> None:
        """Takes it back where no worker has begun with it."""
        self.future.cancel()


class Cluster:
    """A connection to a scheduler; in a ``with`` block, so that nothing of ours stays there.

    Raises:
        ConfigError: Dask is not installed, or no scheduler answers at ``address``.
    """

    def __init__(self, address: str) -> None:
        if find_spec("distributed") is None:
            raise ConfigError(
                "--farm needs Dask, which is not installed",
                hint="install it: pip install 'trtpack[farm]'",
            )
        self.address = address
        self.notes: list[str] = []
        self._topic = f"{TOPIC}-{uuid.uuid4().hex}"
        self._told: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._looked = 0.0
        self._workers: tuple[FarmWorker, ...] = ()
        self._client = self._connected()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close(timeout=2)

    @property
    def dashboard(self) -> str | None:
        """Where Dask's dashboard is, where the scheduler has one."""
        try:
            return self._client.dashboard_link or None
        except KeyError:
            return None

    @property
    def is_gone(self) -> bool:
        """Whether the scheduler went away and does not come back."""
        return time.monotonic() - self._answered > _GONE_S

    @property
    def answers(self) -> bool:
        """Whether the scheduler answered when it was asked last."""
        return self._answered >= self._looked

    def workers(self) -> tuple[FarmWorker, ...]:
        """The workers there are, as of a moment ago; none of a scheduler that is gone."""
        if time.monotonic() - self._looked < _LOOKING_S:
            return self._workers
        self._looked = time.monotonic()
        try:
            if self._client.status != "running":
                raise ConnectionError(f"the connection is {self._client.status}")
            found = self._client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:  # Dask's own, of any kind
            logging.getLogger("trtpack.farm").info("the scheduler: %s", told_of(error))
            if self.is_gone:
                self._workers = ()
            return self._workers
        self._answered = time.monotonic()
        self._workers = tuple(_worker(address, told) for address, told in found.items())
        return self._workers

    def submit(
        self,
        label: str,
        cell: str,
        bundle: bytes,
        variant: str,
        segments: Sequence[str],
        cache: bool,
        fit: Fit,
    ) -> Task:
        """Has one of the workers that fit build engines; ``label`` is what the dashboard shows.

        The bundle goes to one of them through the scheduler, and is gone with the task. Where that
        worker dies, the task is lost.

        Raises:
            ConfigError: it could not be sent.
        """
        addresses = [worker.address for worker in fit.workers]
        shown = label.replace("-", "\u2011")  # Dask cuts a name at its hyphens
        try:
            held = self._client.scatter(bundle, workers=addresses, hash=False)
        except Exception as error:  # Dask's own, of any kind
            raise ConfigError(
                f"could not send a bundle to {', '.join(w.name for w in fit.workers)}: "
                f"{told_of(error)}",
                hint="look at the farm's workers",
            ) from error
        future = self._client.submit(
            build_engines,
            held,
            variant,
            list(segments),
            cell,
            cache,
            self._topic,
            key=f"{shown}-{uuid.uuid4().hex}",
            resources={fit.resource: 1},
            workers=addresses if fit.refused else None,
            pure=False,
        )
        return Task(future, held)

    def told(self) -> list[Mapping[str, Any]]:
        """What tasks told since: ``{"cell", "name", "text"}``, or with ``began`` at their start."""
        found = []
        while not self._told.empty():
            found.append(self._told.get())
        return found

    def _connected(self) -> Client:
        from distributed import Client
        from distributed.versions import VersionMismatchWarning

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        reach(self.address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # it names what has no effect
            client = Client(self.address, timeout=_CONNECTING_S, set_as_default=False)
        assert client.scheduler is not None
        has = client.sync(client.scheduler.versions)["packages"]["distributed"]
        mine = installed("distributed")
        if has != mine:
            self.notes.append(f"the scheduler has Dask {has}, this host {mine}: {ONE_RELEASE}")
        self._answered = time.monotonic()
        client.subscribe_topic(self._topic, lambda event: self._told.put(event[1]))
        return client


def _worker(address: str, told: Mapping[str, Any]) -> FarmWorker:
    try:
        about = json.loads(told[ABOUT])
        facts, version = dict(about["facts"]), str(about["distributed"])
    except (KeyError, TypeError, ValueError):
        facts, version = None, None
    return FarmWorker(address, str(told["name"]), tuple(told["resources"]), facts, version)
