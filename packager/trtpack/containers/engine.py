# SPDX-License-Identifier: Apache-2.0
"""Builds and tries an image on a Docker engine, by the SDK for Python.

The engine is the one that the SDK finds: ``DOCKER_HOST`` and its companions, else the socket of
this machine. Podman's service answers the same calls.

Source: https://docs.docker.com/reference/api/engine/ (ImageBuild, ContainerCreate, BuildInfo).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import BundleError, DeviceError, SmokeFailure, TrtpackError

from ..errors import CompileError, ConfigError
from ..report import Step
from .context import fill
from .recipe import Recipe

_STEP = re.compile(r"step (\d+)/(\d+) ?: (.*)", re.IGNORECASE)
_NO_NAME = re.compile(r"[^a-z0-9._-]+")
_KEPT_LINES = 12
_ANSWERS_WITHIN_SECONDS = 20
_BY_CODE: Mapping[int, type[TrtpackError]] = {
    error.exit_code: error for error in (ConfigError, BundleError, DeviceError, SmokeFailure)
}


@dataclass(frozen=True)
class BuildSettings:
    """How the engine is to build."""

    tag: str
    pull: bool = False  # ask for a newer base
    cache: bool = True
    arguments: tuple[tuple[str, str], ...] = ()  # --build-arg


@dataclass(frozen=True)
class Smoked:
    """How ``trtpack run`` ended in a container, and what it printed."""

    code: int
    lines: tuple[str, ...]

    def failure(self, tag: str) -> TrtpackError | None:
        """The error that the code stands for; None where all is right."""
        if self.code in (0, 8):
            return None
        kind = _BY_CODE.get(self.code, SmokeFailure)
        last = next((line for line in reversed(self.lines) if line.startswith("error: ")), "")
        why = last.removeprefix("error: ") or f"trtpack run ended with {self.code}"
        return kind(f"the smoke test in {tag} failed: {why}", hint="see what it printed above")


def tag_for(recipe: Recipe) -> str:
    """``NAME:VARIANT`` in an image's letters."""
    name, variant = (
        _NO_NAME.sub("-", text.lower()).strip("._-") for text in (recipe.name, recipe.variant)
    )
    return f"{name or 'bundle'}:{variant or 'latest'}"


def connect() -> Any:
    """A client of the engine that answers.

    Raises:
        ConfigError: the SDK is not installed.
        DeviceError: no engine answers.
    """
    try:
        from docker import errors, from_env
        from docker.constants import DEFAULT_UNIX_SOCKET
    except ImportError as error:
        raise ConfigError(
            "the SDK for Docker is not installed",
            hint="install it: pip install 'trtpack[docker]'; or write the build context alone, "
            "with trtpack docker context",
        ) from error
    try:
        client = from_env(timeout=_ANSWERS_WITHIN_SECONDS)
        client.ping()
    except (errors.DockerException, OSError) as error:
        where = os.environ.get("DOCKER_HOST") or DEFAULT_UNIX_SOCKET.replace("http+", "")
        raise DeviceError(
            f"no Docker engine answers at {where}: {_reason(error)}",
            hint="start one, or say where it is with DOCKER_HOST; trtpack docker context writes "
            "the build context without one",
        ) from error
    client.api.timeout = None  # a step, or an engine that a device builds, is silent for minutes
    return client


def build(
    client: Any, recipe: Recipe, settings: BuildSettings, step: Step, say: Callable[[str], None]
) -> str:
    """Builds the image; answers its id. ``say`` gets a line when the engine begins a step.

    Raises:
        CompileError: a step of the build failed, with the engine's last lines.
        DeviceError: the engine went away.
    """
    with tempfile.TemporaryDirectory(prefix="trtpack-context-") as temporary:
        folder = Path(temporary) / "context"
        folder.mkdir()
        step.detail("writing the build context")
        fill(recipe, folder)
        step.detail("sending it to the engine")
        with _engine_errors(f"build {settings.tag}", "see the engine's own log"):
            answer = client.api.build(
                path=str(folder),
                tag=settings.tag,
                platform=recipe.platform,
                pull=settings.pull,
                nocache=not settings.cache,
                buildargs=dict(settings.arguments),
                rm=True,
                forcerm=True,
                decode=True,
            )
            return _follow(answer, settings.tag, step, say)


def smoke(client: Any, recipe: Recipe, tag: str, say: Callable[[str], None]) -> Smoked:
    """Runs the bundle's golden samples in a container of the image, and drops the container.

    Raises:
        DeviceError: the engine cannot start it, as where it has no access to a GPU.
    """
    toolkit = "give the engine access to the GPU with the NVIDIA Container Toolkit"
    with _engine_errors(f"run {tag}", toolkit if recipe.gpu else "see the engine's own log"):
        container = client.containers.create(
            tag, ["--no-bench"], platform=recipe.platform, **_gpu(recipe)
        )
        try:
            container.start()
            lines = []
            for line in _lines(container.logs(stream=True, follow=True)):
                lines.append(line)
                say(line)
            code = container.wait()["StatusCode"]
        finally:
            container.remove(force=True)
    return Smoked(int(code), tuple(lines))


def _gpu(recipe: Recipe) -> dict[str, Any]:
    if not recipe.gpu:
        return {}
    if recipe.jetson:
        return {"runtime": "nvidia"}
    from docker.types import DeviceRequest

    return {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]}


def _follow(
    answer: Iterator[Mapping[str, Any]], tag: str, step: Step, say: Callable[[str], None]
) -> str:
    """Shows the engine's lines; answers the id of the image."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    image = ""
    for event in answer:
        failed = (event.get("errorDetail") or {}).get("message") or event.get("error")
        if failed:
            said = "\n".join(f"  {line}" for line in kept)
            raise CompileError(
                f"cannot build the image {tag}: {' '.join(str(failed).split())}; the engine's "
                f"last lines:\n{said}",
                hint="correct what the last step says, or give another --base",
            )
        image = (event.get("aux") or {}).get("ID", image)
        text = str(event.get("stream") or event.get("status") or "").strip()
        if not text:
            continue
        if "stream" in event:
            kept.extend(text.splitlines())
        at = _STEP.match(text)
        if at:
            step.update(int(at[1]) - 1, int(at[2]), at[3])
            say(f"  {at[1]}/{at[2]} {at[3]}")
        else:
            step.detail(_line(event, text))
    if not image:
        raise CompileError(
            f"cannot build the image {tag}: the engine's answer ended early",
            hint="see the engine's own log, then build again",
        )
    return image


def _line(event: Mapping[str, Any], text: str) -> str:
    """One line of the engine, with how far a layer is."""
    detail = event.get("progressDetail") or {}
    if detail.get("total"):
        return f"{event.get('id', '')} {text} {100 * detail['current'] // detail['total']} %"
    return text.splitlines()[-1]


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Whole lines of what comes in pieces."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


@contextmanager
def _engine_errors(what: str, hint: str) -> Iterator[None]:
    """What the SDK raises as a DeviceError."""
    import requests
    from docker import errors

    try:
        yield
    except (errors.DockerException, requests.RequestException) as error:
        raise DeviceError(
            f"the Docker engine cannot {what}: {_reason(error)}", hint=hint
        ) from error


def _reason(error: Exception) -> str:
    """What the system said of it, else what the engine or the SDK did, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(getattr(error, "explanation", None) or error).split())
