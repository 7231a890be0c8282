# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/build-over-ssh.md says what there is. That it works: tests/packager/remote."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from trtpack.cli.build import build
from trtpack.remote import cooling, finishing
from trtpack.remote.bootstrap import OLDEST_PYTHON
from trtpack_runtime.cli.run import run
from trtpack_runtime.remote import wire

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/build-over-ssh.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    trtpack (.*)$", PAGE, re.MULTILINE)
SOURCES = [*ROOT.glob("packager/trtpack/remote/*.py"), *ROOT.glob("runtime_py/**/remote/*.py")]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_such(line: str) -> None:
    verb, *words = shlex.split(line)
    command = {"build": build, "run": run}[verb]
    with command.make_context(verb, words) as context:
        assert context.params["on"].startswith("ssh://")


def test_the_options_of_the_text() -> None:
    known = {name for command in (build, run) for p in command.params for name in p.opts}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named >= {"--on", "--ssh-option", "--remote-python", "--lease-timeout", "--cool-below"}
    assert named <= known | {"--json"}


def test_the_figures_of_the_text() -> None:
    assert f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer" in PAGE
    assert f"`--cool-below` ({cooling.COOL_BELOW_C:.0f} °C)" in PAGE
    assert cooling.COOL_DOWN_S == 5 * 60
    assert "for 5 minutes at most" in PAGE
    assert wire.SILENCE_S == 60
    assert "after a minute of silence" in PAGE
    assert finishing.ATTEMPTS == 5
    assert "after five times without an engine, which is about a minute" in PAGE
    assert 45 < sum(finishing._PAUSE_S) < 75


def test_what_it_says_is_said_somewhere() -> None:
    code = " ".join(path.read_text(encoding="utf-8") for path in SOURCES)
    code = re.sub(r'"\s+f?"', "", code)
    code += (ROOT / "runtime_py/trtpack_runtime/engines/tensorrt.py").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    messages = [message for row in rows for message in re.findall("`(.*?)`", row)]
    assert len(messages) == 12
    for message in messages:
        pattern = r"\S+".join(map(re.escape, message.split("3.10")))
        assert re.search(pattern, code), message
