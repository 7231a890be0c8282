# SPDX-License-Identifier: Apache-2.0
"""Python source without what only its readers need: comments and docstrings.

Every line stays where it is, so that a traceback names the line of the original. The first comment
stays, the license; so does the first line of a class's docstring, without which ``dataclass`` makes
one up at every import.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

_Body = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def slim(source: str) -> str:
    """The source with blank lines for what is left out; it computes the same.

    Args:
        source: with no code on the lines of a docstring.
    """
    lines = source.splitlines(keepends=True)
    for row, column in _comments(source):
        lines[row] = lines[row][:column].rstrip() + "\n"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Body):
            for text in _texts(node):
                _leave_out(lines, node, text)
    return "".join(lines)


def _comments(source: str) -> list[tuple[int, int]]:
    """The line, from 0, and the column of each comment but the first."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [token.start for token in tokens if token.type == tokenize.COMMENT]
    return [(row - 1, column) for row, column in found[1:]]


def _texts(node: _Body) -> Iterator[ast.Expr]:
    """The statements that are nothing but a string: the docstring, and those of attributes."""
    for statement in node.body:
        match statement:
            case ast.Expr(ast.Constant(str())):
                yield statement


def _leave_out(lines: list[str], node: _Body, text: ast.Expr) -> None:
    first, end = text.lineno - 1, text.end_lineno or text.lineno
    kept = "\n"
    if isinstance(node, ast.ClassDef) and text is node.body[0]:
        kept = lines[first]
        if end > first + 1:
            kept = kept.rstrip() + lines[end - 1].rstrip()[-3:] + "\n"
    elif len(node.body) == 1 and not isinstance(node, ast.Module):
        kept = " " * text.col_offset + "...\n"
    lines[first:end] = [kept, *["\n"] * (end - first - 1)]
