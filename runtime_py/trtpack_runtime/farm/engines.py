# SPDX-License-Identifier: Apache-2.0
"""What a farm's worker does: builds the engines that a bundle leaves to a device like it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import errors
from ..bundle import open_bundle
from ..device import facts
from ..engine_store import EngineStore
from ..errors import EngineBuildError, TrtpackError
from ..finish import Finished, Stores, Workshop, finish_variant
from ..progress import Progress
from ..tactics import Tactics, TacticStore, from_lock, to_lock

Tell = Callable[[Mapping[str, Any]], None]
"""Told ``{"cell", "text"}`` while engines are built."""

_EVERY_S = 0.5


def build_engines(
    bundle: bytes, variant: str, segments: Sequence[str], cell: str, cache: bool, topic: str
) -> dict[str, Any]:
    """The task that Dask runs: ``engines_of`` with its progress in Dask's ``topic``.

    Answers ``{"name", "engines": [...], "facts"}``, or ``{"name", "error": {"class", "message",
    "hint"}}``: an error is no exception here, so that no class of ours crosses the wire.
    """
    from distributed import get_worker

    worker = get_worker()

    def tell(said: Mapping[str, Any]) -> None:
        worker.log_event(topic, {"cell": cell, "name": str(worker.name), **said})

    tell({"began": True})
    answer: dict[str, Any] = {"name": str(worker.name)}
    try:
        with TemporaryDirectory(dir=worker.local_directory, ignore_cleanup_errors=True) as folder:
            return answer | engines_of(bundle, variant, segments, cache, Path(folder), tell)
    except TrtpackError as error:
        told = {"class": type(error).__name__, "message": error.message, "hint": error.hint}
        return answer | {"error": told}


def engines_of(
    bundle: bytes, variant: str, segments: Sequence[str], cache: bool, folder: Path, tell: Tell
) -> dict[str, Any]:
    """Builds the engines of some segments of a variant, or takes them from this machine's store.

    Without ``cache`` neither the store of engines nor that of tactics is looked at or written.
    ``folder`` is scratch.

    Raises:
        TrtpackError: as ``finish.finish_segment``.
    """
    path = folder / "bundle.tar"
    path.write_bytes(bundle)
    own = Stores(EngineStore(folder / "engines"), TacticStore(folder / "tactics"))
    here = facts()
    shop = Workshop(here, folder, Stores() if cache else own, on_progress=_told(tell))
    made = finish_variant(open_bundle(path), variant, segments, shop)
    return {"facts": json.dumps(here), "engines": [_plain(engine) for engine in made]}


def raised(error: Mapping[str, str], name: str) -> TrtpackError:
    """The error that a worker called ``name`` answered, as the same class."""
    kind = getattr(errors, error["class"], EngineBuildError)
    if not (isinstance(kind, type) and issubclass(kind, TrtpackError)):
        kind = EngineBuildError
    return kind(f"{error['message']} (on worker {name})", hint=error["hint"])


def tactics_of(engine: Mapping[str, Any]) -> Tactics | None:
    """What building an answered engine taught of its device's tactics, where it was built now."""
    learnt = engine["learnt"]
    return None if learnt is None else from_lock(learnt["lock"], learnt["blob"])


def _plain(made: Finished) -> dict[str, Any]:
    learnt = made.learnt
    return {
        "segment": made.segment,
        "kind": made.kind,
        "plan": made.path.read_bytes(),
        "record": json.dumps(made.record),
        "seconds": made.seconds,
        "cached": made.cached,
        "built_at": made.built_at,
        "learnt": None if learnt is None else {"blob": learnt.blob, "lock": to_lock(learnt)},
    }


def _told(tell: Tell) -> Callable[[Progress], None]:
    """Tells what a build is at, at most every half second."""
    last = 0.0

    def told(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY_S:
            last = now
            tell({"text": progress.text()})

    return told
