# SPDX-License-Identifier: Apache-2.0
"""The first program on a device: read by any shell and any Python."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from types import SimpleNamespace

import pytest

from trtpack.remote.bootstrap import command, first_bytes
from trtpack_runtime.archive_writer import Member


def test_a_shell_reads_the_command_as_four_words() -> None:
    words = shlex.split(command("/opt/my python/bin/python3"))
    assert words[:3] == ["exec", "/opt/my python/bin/python3", "-c"]
    assert len(words) == 4
    assert not set("!`$\\\n'") & set(words[3])  # what csh, fish or sh would make something of


def test_python_3_4_reads_the_program() -> None:
    """The oldest that Python can still judge; what it reads has to say that it is too old."""
    first, asked, rest = first_bytes("mark", "/mnt", [Member("runtime/a.whl", b"abc")]).split(
        b"\n", 2
    )
    outer = ast.parse(first, feature_version=(3, 4))
    (call,) = (node for node in ast.walk(outer) if isinstance(node, ast.Call))
    program = ast.literal_eval(call.args[0])
    ast.parse(program, feature_version=(3, 4))
    assert not any(isinstance(node, ast.JoinedStr) for node in ast.walk(ast.parse(program)))
    told = json.loads(asked)
    assert told["folder"] == "/mnt"
    assert told["wheels"][0][:2] == ["a.whl", 3]
    assert rest == b"abc"


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 19)])
def test_an_old_python_says_which_it_is(
    version: tuple[int, int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    first = first_bytes("mark", None, []).split(b"\n", 1)[0].decode()
    program = ast.literal_eval(first.removeprefix("exec(").removesuffix(")"))
    old = SimpleNamespace(version_info=version, stdout=sys.stdout)
    exec(program.replace("import sys\n", "", 1), {"sys": old})  # it is this repository's own
    told = ".".join(map(str, version))
    assert capsys.readouterr().out == f'mark {{"python": "{told}"}}\n'
