# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run --on`` has the device run."""

from __future__ import annotations

from pathlib import Path

from trtpack_runtime.cli.run import run
from trtpack_runtime.cli.run_elsewhere import _Files


def test_the_device_is_told_the_long_names_of_what_was_given(tmp_path: Path) -> None:
    """A short one would take the sign of equality for a part of its value."""
    bundle = tmp_path / "bundle.tar"
    bundle.touch()
    given = [str(bundle), "-t", "ada", "--no-bench", "--on", "ssh://robot"]
    with run.make_context("run", given) as context:
        words = _Files(bundle).words(context)
    assert "--target=ada" in words
    assert not [word for word in words if word.startswith("-") and not word.startswith("--")]
    assert not [word for word in words if "robot" in word]
