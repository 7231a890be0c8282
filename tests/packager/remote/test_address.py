# SPDX-License-Identifier: Apache-2.0
"""What ``--on`` takes."""

from __future__ import annotations

import pytest

from trtpack.errors import ConfigError
from trtpack.remote.address import Address, check_on, parse_address


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ssh://orin", Address("orin")),
        ("ssh://robot@Orin-3.local:2222", Address("Orin-3.local", "robot", 2222)),
        ("ssh://10.0.0.7/mnt/my%20disk/", Address("10.0.0.7", folder="/mnt/my disk")),
        ("ssh://u@[fe80::1]:22", Address("fe80::1", "u", 22)),
    ],
)
def test_addresses(text: str, wanted: Address) -> None:
    assert parse_address(text) == wanted


def test_an_address_as_people_write_it() -> None:
    assert str(parse_address("ssh://robot@orin:2222/mnt")) == "robot@orin:2222"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("orin", "no address of a device"),
        ("http://orin", "no address of a device"),
        ("ssh://", "is no host"),
        ("ssh://orin:port", "no address of a device"),
        ("ssh://robot:secret@orin", "an address has no password"),
        ("ssh://-oProxyCommand=evil", "is no host"),
        ("ssh://-l@orin", "is no user"),
        ("ssh://orin?x=1", "more than host and folder"),
    ],
)
def test_what_is_no_address(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        parse_address(text)
    assert raised.value.hint


def test_this_machine_is_no_target_there() -> None:
    assert check_on("ssh://orin", ["orin"]) == Address("orin")
    for name in ("native", "Auto"):
        with pytest.raises(ConfigError, match=f"-t {name} is this machine, --on builds for orin"):
            check_on("ssh://orin", ["cpu", name])
