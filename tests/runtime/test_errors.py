# SPDX-License-Identifier: Apache-2.0
"""Errors carry what a user and a script need."""

from __future__ import annotations

import pytest

from trtpack_runtime import errors
from trtpack_runtime.errors import BundleError, InternalError, TrtpackError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("InputMismatchError", 2),
        ("CompileError", 4),
        ("EngineBuildError", 4),
        ("BundleError", 5),
        ("DeviceError", 6),
        ("SmokeFailure", 7),
    ],
)
def test_the_class_carries_the_exit_code(name: str, code: int) -> None:
    error = getattr(errors, name)("it failed", hint="try again")
    assert isinstance(error, TrtpackError)
    assert (error.exit_code, error.message, error.hint) == (code, "it failed", "try again")
    assert str(error) == "it failed"


def test_a_bug_of_ours_is_not_under_the_root() -> None:
    assert not issubclass(InternalError, TrtpackError)
    assert InternalError.exit_code == 70


def test_a_bundle_error_carries_what_was_compared() -> None:
    error = BundleError("differs", wants="a", has="b", member="m")
    assert (error.wants, error.has, error.member, error.hint) == ("a", "b", "m", "")
