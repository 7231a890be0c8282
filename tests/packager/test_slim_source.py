# SPDX-License-Identifier: Apache-2.0
"""Source without comments and docstrings: it does the same, on the same lines."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import trtpack_runtime
from trtpack.slim_source import slim

SOURCE = '''\
# the license
"""A module.

With more to say.
"""

from __future__ import annotations  # first

LIMIT = 3  # of "calls"
"""How many."""


class Kept:
    """What it is.

    And why.
    """

    size: int = 2
    """Its size."""

    def __len__(self) -> int:
        """As many."""
        # two
        return self.size

    def nothing(self) -> None:
        """Does nothing.

        At all.
        """


class Bare:
    """Has a docstring only."""


text = """not # a comment
"""
'''
SLIM = '''\
# the license





from __future__ import annotations

LIMIT = 3



class Kept:
    """What it is."""




    size: int = 2


    def __len__(self) -> int:


        return self.size

    def nothing(self) -> None:
        ...





class Bare:
    """Has a docstring only."""


text = """not # a comment
"""
'''


def test_comments_and_docstrings_go_and_lines_stay() -> None:
    assert slim(SOURCE) == SLIM
    assert slim(SLIM) == SLIM


def test_what_a_module_computes_stays() -> None:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    exec(SOURCE, before)
    exec(slim(SOURCE), after)
    assert after["text"] == before["text"] == "not # a comment\n"
    assert (len(after["Kept"]()), after["Kept"]().nothing()) == (2, None)
    assert after["Kept"].__doc__ == "What it is."


@pytest.mark.parametrize("source", ["", "\n", '"""Only a docstring."""\n', "# only a license\n"])
def test_modules_with_nothing_in_them(source: str) -> None:
    assert slim(source).count("\n") == source.count("\n")
    compile(slim(source), "module", "exec")


class _Texts(ast.NodeTransformer):
    """Leaves out what is nothing but a string, and what stands in its place."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        value = node.value
        is_text = isinstance(value, ast.Constant) and (
            isinstance(value.value, str) or value.value is ...
        )
        return None if is_text else node


def test_every_module_of_the_runtime_is_the_same_code_on_the_same_lines() -> None:
    root = Path(trtpack_runtime.__file__).parent
    for file in sorted(root.rglob("*.py")):
        source = file.read_text()
        slimmed = slim(source)
        assert slimmed.count("\n") == source.count("\n"), file
        was, now = (
            [_place(node) for node in ast.walk(_Texts().visit(ast.parse(text)))]
            for text in (source, slimmed)
        )
        assert was == now, file


def _place(node: ast.AST) -> tuple[Any, ...]:
    name = getattr(node, "name", getattr(node, "id", getattr(node, "value", None)))
    named = name if isinstance(name, str | int | float | bytes) else None
    return type(node), named, getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
