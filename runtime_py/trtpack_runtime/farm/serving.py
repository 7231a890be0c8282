# SPDX-License-Identifier: Apache-2.0
"""Serves a farm: a Dask worker that says which targets it builds for, and a scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..device import installed
from ..engines._processes import end_children
from ..errors import ConfigError, DeviceError
from . import ABOUT, TARGETS

Say = Callable[[str], None]
_ASKING_S, _STARTING_S, _AGAIN_S = 10.0, 60.0, 0.5
_FOLDER = "trtpack-farm-"
_PORT = 8786
"""Where Dask's schedulers listen unless they are told."""


def about(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker says of itself to whoever sends work: its facts, and the Dask it has."""
    return {"facts": dict(facts), "distributed": installed("distributed")}


def named_targets(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The targets that a machine of these facts builds for, where something here knows them.

    Raises:
        ConfigError: nothing does: only ``trtpack`` has the names, a device need not have that.
        DeviceError: it can build for none.
    """
    points = entry_points(group=TARGETS)
    if not points:
        raise ConfigError(
            "only trtpack-runtime is here, which does not know the names of targets",
            hint="say what this device is, for example --target orin",
        )
    found = tuple(name for point in points for name in point.load()(facts))
    if not found:
        raise DeviceError(
            "this machine can build engines for no target: it has neither a GPU with TensorRT nor "
            "TensorRT-RTX",
            hint="install one, see: trtpack doctor",
        )
    return found


def serve(
    scheduler: str, targets: Sequence[str], facts: Mapping[str, Any], name: str | None, say: Say
) -> None:
    """Works for ``scheduler`` until that goes away or this process is told to end.

    Raises:
        ConfigError: no scheduler answers there, or one that speaks another Dask.
    """
    _quiet()
    reach(scheduler, _STARTING_S, say)
    asyncio.run(_serve(scheduler, targets, json.dumps(about(facts)), name, say))


async def _serve(
    scheduler: str, targets: Sequence[str], told: str, name: str | None, say: Say
) -> None:
    from distributed import Worker

    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-") as folder:
        try:
            worker = await Worker(
                scheduler,
                name=name,
                nthreads=1,  # a device tunes one engine at a time
                memory_limit=0,
                resources=dict.fromkeys(targets, 1.0),
                startup_information={ABOUT: lambda _: told},
                local_directory=folder,
                dashboard=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{scheduler} does not take this worker: {told_of(error.__cause__ or error)}",
                hint="give another --name, and one release of Dask to all machines",
            ) from error
        say(f"worker {worker.name} serves {scheduler}")
        _end_on_signals(lambda: asyncio.ensure_future(worker.close(reason="told to end")))
        await worker.finished()
    say("ended")


def _sweep() -> None:
    """Drops what workers of this user left that were killed: a bundle each, of any size."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        try:
            os.kill(int(path.name[len(_FOLDER) :].partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):
            continue


def schedule(address: str, dashboard: str, say: Say) -> None:
    """Runs a scheduler at ``address`` (``tcp://HOST:PORT``) until this process is told to end.

    Raises:
        ConfigError: it cannot listen there.
    """
    _quiet()
    asyncio.run(_schedule(address, dashboard, say))


async def _schedule(address: str, dashboard: str, say: Say) -> None:
    from distributed import Scheduler

    protocol, host, port = _parts(address)
    try:
        scheduler = await Scheduler(
            host=host or None,
            port=port,
            protocol=f"{protocol}://",
            dashboard_address=dashboard,
        )
    except (OSError, OverflowError, RuntimeError) as error:
        raise ConfigError(
            f"cannot listen at {address}: {told_of(error.__cause__ or error)}",
            hint="choose another --listen",
        ) from error
    say(f"scheduler at {scheduler.address}")
    if "dashboard" in scheduler.services:
        say(
            f"dashboard at http://{scheduler.address_safe.rpartition(':')[0].rpartition('/')[2]}"
            f":{scheduler.services['dashboard'].port}/status"
        )
    _end_on_signals(lambda: asyncio.ensure_future(scheduler.close()))
    await scheduler.finished()
    say("ended")


def reach(scheduler: str, patience_s: float = 0.0, say: Say | None = None) -> None:
    """Asks a scheduler who it is; waits for one that does not run yet.

    Raises:
        ConfigError: the address is malformed, nobody answers there, or no scheduler does.
    """
    _, host, port = _parts(scheduler)
    try:
        _connect(host, port, patience_s, say)  # says at once what is wrong
        kind = asyncio.run(asyncio.wait_for(_kind(scheduler), _ASKING_S))
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise _unreachable(scheduler, f"nothing within {_ASKING_S:.0f} s") from error
    except Exception as error:  # of the system, or whatever Dask makes of what is not Dask
        raise _unreachable(scheduler, told_of(error)) from error
    if kind != "Scheduler":
        raise _unreachable(scheduler, f"a {kind}")


def _connect(host: str, port: int, patience_s: float, say: Say | None) -> None:
    until, told = time.monotonic() + patience_s, False
    while True:
        try:
            socket.create_connection((host, port), _ASKING_S).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
        if say is not None and not told:
            say(f"nothing listens there yet; waits {patience_s:.0f} s for it")
        told = True
        time.sleep(_AGAIN_S)


async def _kind(address: str) -> str:
    from distributed.core import rpc
    from distributed.security import Security

    arguments = Security().get_connection_args("client")
    async with rpc(address, connection_args=arguments) as asked:
        return str((await asked.identity(n_workers=0))["type"])


def _parts(address: str) -> tuple[str, str, int]:
    """Protocol, host and port of ``tcp://HOST:PORT``; the host may be empty."""
    found = re.fullmatch(r"(?:(tcp|tls)://)?\[?([^/\[\]]*?)\]?(?::(\d{1,5}))?", address)
    if found is None:
        raise ConfigError(
            f"bad address {address!r}", hint="write it as tcp://HOST:PORT, or tls://HOST:PORT"
        )
    return found[1] or "tcp", found[2], int(found[3] or _PORT)


def _unreachable(scheduler: str, answer: str) -> ConfigError:
    return ConfigError(
        f"no scheduler answers at {scheduler}: {answer}",
        hint="check the address, or start one: trtpack farm scheduler",
    )


def told_of(error: BaseException) -> str:
    """An error's own words in one line, or its name where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


def _end_on_signals(end: Callable[[], object]) -> None:
    """Ends on Ctrl-C and SIGTERM, what is being built too."""

    def ended() -> None:
        end_children()
        end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended)


def _quiet() -> None:
    """Errors are told as ours."""
    import_module("distributed")  # sets the levels itself
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
