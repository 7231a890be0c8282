# SPDX-License-Identifier: Apache-2.0
"""The process on the device: does what the host asks until the host is gone, then tidies up.

A thread reads standard input, so that its end is seen while an engine is being built. Whatever ends
this process, its children, its folder and its lease go with it; where it is killed outright, the
system frees the lease and the next host removes the folder.
"""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from ..device import look
from ..errors import DeviceError, TrtpackError
from . import condition, lease
from .candidates import Candidates
from .place import Place, after_this_process, sweep
from .tasks import Tasks
from .wire import ALIVE_S, CHUNK, SILENCE_S, Lost, Receiver, Sender

Answer = tuple[dict[str, Any], bytes]

_PATIENCE_S = 2.0


def main(root: str, paths: Sequence[str]) -> NoReturn:
    """Serves the host at the other end of standard input and output, then ends the process.

    Args:
        root: the folder for everything, which is this process' own and locked.
        paths: the wheels in it that children need on their path.
    """
    end = _End(Place(Path(root)), paths)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.leave(1))
    end.serve()


class _End:
    def __init__(self, place: Place, paths: Sequence[str]) -> None:
        self._place = place
        self._lease: lease.Lease | None = None
        self._sender = Sender(os.fdopen(os.dup(1), "wb"))
        os.dup2(2, 1)  # what anything else prints goes to standard error
        self._receiver = Receiver(0, SILENCE_S)
        self._requests: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._leaving, self._taking, self._over = Lock(), Lock(), threading.Event()
        os.environ.update(place.environment())
        (place.root / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = None  # it is where TMPDIR says from now on
        self._facts = look().to_json()
        self._tasks = Tasks(place, self._facts, paths)
        self._candidates = Candidates(place, paths)
        self._known: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "lease": self._take_lease,
            "get": self._get,
            "has": self._has,
            "condition": self._condition,
            "cool": self._cool,
            "build": self._build,
            "adopt": self._adopt,
            "probe": self._probe,
            "execute": self._execute,
            "room": self._room,
            "candidate": lambda request: (self._candidates.start(request), b""),
            "turn": lambda request: (self._candidates.turn(request), b""),
            "is_alive": lambda request: (self._candidates.alive(request), b""),
            "drop": lambda request: (self._candidates.drop(request), b""),
        }

    def serve(self) -> NoReturn:
        try:
            self._sender.send(self._hello())
            threading.Thread(target=self._listen, daemon=True).start()
            threading.Thread(target=self._keep_alive, daemon=True).start()
            while True:
                request = self._requests.get()
                self._answer(request, self._known[request["do"]])
        except Lost:
            pass
        finally:
            self._leave_after(sys.exc_info()[1])

    def _leave_after(self, error: BaseException | None) -> NoReturn:
        if error is not None:  # a bug of ours
            with suppress(Lost):
                self._sender.send({"bug": "".join(traceback.format_exception(error))})
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """Ends the children and this process, then removes the folder and gives the lease back."""
        if not self._leaving.acquire(blocking=False):
            time.sleep(SILENCE_S)  # another thread is doing it, and ends the process
        self._over.set()
        self._tasks.kill()
        self._candidates.kill()
        self._taking.acquire(timeout=_PATIENCE_S)
        after_this_process(self._tidy_up)
        os._exit(code)

    def _tidy_up(self) -> None:
        self._place.remove()
        if self._lease is not None:
            self._lease.release()

    def _hello(self) -> dict[str, Any]:
        found = list(metadata.distributions(name="numpy"))
        return {
            "facts": self._facts,
            "numpy": found[0].version if found else None,
            "clock": time.time(),
            "folder": str(self._place.root),
            "free_bytes": self._place.free_bytes(),
            "swept": sweep(self._place.root),
        }

    def _listen(self) -> None:
        try:
            while True:
                request = self._receiver.message()
                if request["do"] == "put":
                    self._answer(request, self._put)
                elif request["do"] == "end":
                    self.leave(0)
                elif request["do"] != "alive":
                    self._requests.put(request)
        except Lost:
            pass
        finally:
            self._leave_after(sys.exc_info()[1])

    def _keep_alive(self) -> None:
        try:
            while True:
                time.sleep(ALIVE_S)
                self._sender.send({"alive": True})
        except Lost:
            self.leave(1)

    def _answer(
        self, request: Mapping[str, Any], task: Callable[[Mapping[str, Any]], Answer]
    ) -> None:
        try:
            result, data = task(request)
        except TrtpackError as error:
            told = {"class": type(error).__name__, "message": error.message, "hint": error.hint}
            layers = list(getattr(error, "layers", ()))
            self._sender.send({"id": request["id"], "error": {**told, "layers": layers}})
        except OSError as error:
            self._sender.send({"id": request["id"], "error": self._told(error)})
        else:
            self._sender.send({"id": request["id"], "result": result}, data)

    def _told(self, error: OSError) -> dict[str, str]:
        reason = (error.strerror or str(error)).lower()
        return {
            "class": "DeviceError",
            "message": f"cannot write to {self._place.root.parent} there: {reason}",
            "hint": "free space there, or name a folder on another disk at the end of the address",
        }

    def _report(self, request: Mapping[str, Any]) -> Callable[[Mapping[str, Any], bytes], None]:
        def report(told: Mapping[str, Any], data: bytes) -> None:
            self._sender.send({"id": request["id"], **told}, data)

        return report

    def _take_lease(self, request: Mapping[str, Any]) -> Answer:
        report = self._report(request)
        began = time.monotonic()

        told: list[Any] = []

        def held(by: Mapping[str, Any]) -> bool:
            if by["holder"] not in told:
                told.append(by["holder"])
                report({"held": dict(by)}, b"")
            return not self._over.is_set()

        try:
            with self._taking:
                self._lease = lease.take(request["who"], request["timeout_s"], held)
        except lease.GivenUp as error:
            raise Lost("nobody waits for the lease any more") from error
        waited = time.monotonic() - began
        return {"waited_s": waited, "left_behind": self._lease.left_behind}, b""

    def _put(self, request: Mapping[str, Any]) -> Answer:
        """Writes a file; what comes is read to its end even where the disk takes no more."""
        digest, failure = hashlib.sha256(), None
        pieces = self._receiver.pieces(request.get("bytes", 0))
        try:
            with self._place.path(request["name"]).open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
        except OSError as error:
            failure = error
            for _ in pieces:
                pass
        if failure is not None:
            raise failure
        if digest.hexdigest() != request["sha256"]:
            raise DeviceError(f"{request['name']} arrived damaged", hint="try again")
        return {}, b""

    def _get(self, request: Mapping[str, Any]) -> Answer:
        path = self._place.path(request["name"])
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
        size = path.stat().st_size

        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(CHUNK):
                    yield piece

        self._sender.stream({"id": request["id"], "file": digest.hexdigest()}, size, pieces())
        return {}, b""

    def _has(self, request: Mapping[str, Any]) -> Answer:
        return {"there": self._place.path(request["name"]).exists()}, b""

    def _room(self, _: Mapping[str, Any]) -> Answer:
        return {"free_bytes": self._place.free_bytes()}, b""

    def _condition(self, _: Mapping[str, Any]) -> Answer:
        return condition.condition(self._facts), b""

    def _cool(self, request: Mapping[str, Any]) -> Answer:
        report = self._report(request)
        done = condition.cool_down(
            self._facts,
            request["below_c"],
            request["timeout_s"],
            lambda degrees: report({"hot": degrees}, b""),
        )
        return done, b""

    def _build(self, request: Mapping[str, Any]) -> Answer:
        return self._tasks.build(request, self._report(request)), b""

    def _adopt(self, request: Mapping[str, Any]) -> Answer:
        return self._tasks.adopt(request, self._report(request)), b""

    def _probe(self, request: Mapping[str, Any]) -> Answer:
        return self._tasks.probe(request, self._report(request)), b""

    def _execute(self, request: Mapping[str, Any]) -> Answer:
        return self._tasks.execute(request, self._report(request)), b""
