# SPDX-License-Identifier: Apache-2.0
"""Which line of the user's code a graph's node or an error comes from."""

from __future__ import annotations

import linecache
import re

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in .*\n\s*(?P<code>.*))?')


def user_line(stack_trace: str) -> str:
    """``file.py:12`` of the innermost frame outside torch; empty where there is none."""
    frames = [m for m in _FRAME.finditer(stack_trace) if not _in_library(m["file"])]
    if not frames:
        return ""
    return f"{frames[-1]['file'].rsplit('/', 1)[-1]}:{frames[-1]['line']}"


def user_frame(error: Exception, text: str) -> tuple[str, str]:
    """``file.py:12`` where an error came from in the user's code, by its ``text`` or its traceback,
    and that line; both empty where it came from no such code."""
    frames = [m for m in _FRAME.finditer(text) if not _in_library(m["file"])]
    if frames:
        last = frames[-1]
        return f"{last['file']}:{last['line']}", (last["code"] or "").strip()
    traceback, found = error.__traceback__, ("", "")
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not _in_library(code.co_filename) and "/trtpack/" not in code.co_filename:
            source = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
            found = (f"{code.co_filename}:{traceback.tb_lineno}", source)
        traceback = traceback.tb_next
    return found


def _in_library(file: str) -> bool:
    return "/torch/" in file or file.startswith(("torch/", "<"))
