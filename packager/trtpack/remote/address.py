# SPDX-License-Identifier: Apache-2.0
"""``ssh://user@host:port/folder``: which device, and where on it there is room."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError
from ..target import AUTO, NATIVE

SCHEME = "ssh"
_NAME = re.compile(r"[A-Za-z0-9_.:%\[\]-]+")
_HINT = "write it as ssh://user@host, ssh://host:2222 or ssh://host/folder"


@dataclass(frozen=True)
class Address:
    """A device. What is None is left to the user's SSH configuration, or to the device."""

    host: str
    user: str | None = None
    port: int | None = None
    folder: str | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.host}{port}"


def parse_address(text: str) -> Address:
    """The device that ``--on`` names.

    Raises:
        ConfigError: it is no such address, or has a password in it.
    """
    scheme, mark, _ = text.partition("://")
    if not mark or scheme != SCHEME:
        raise ConfigError(f"{text!r} is no address of a device", hint=_HINT)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{text!r} is no address of a device: {error}", hint=_HINT) from error
    if parts.password is not None:
        raise ConfigError(
            "an address has no password: SSH logs in with a key",
            hint="set a key up with ssh-copy-id and leave the password out",
        )
    host, user = parts.hostname or "", parts.username
    for what, name in (("host", host), ("user", user)):
        if name is None:
            continue
        if name.startswith("-") or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} in {text!r} is no {what}", hint=_HINT)
    if parts.query or parts.fragment:
        raise ConfigError(f"{text!r} has more than host and folder", hint=_HINT)
    folder = unquote(parts.path).rstrip("/")
    return Address(_as_written(host, parts.netloc), user, port, folder or None)


def check_on(text: str, targets: Iterable[str]) -> Address:
    """The device of ``--on``, for targets by the names they were asked for.

    Raises:
        ConfigError: it is no address, or a target is this machine itself.
    """
    address = parse_address(text)
    for name in targets:
        if name.strip().lower() in (NATIVE, AUTO):
            raise ConfigError(
                f"-t {name} is this machine, --on builds for {address}",
                hint="name the device's target, see: trtpack targets",
            )
    return address


def _as_written(host: str, netloc: str) -> str:
    """The host with its capitals: names of the user's configuration have them."""
    place = netloc.lower().rfind(host)
    return netloc[place : place + len(host)] if place >= 0 else host
