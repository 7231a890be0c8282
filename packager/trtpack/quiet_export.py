# SPDX-License-Identifier: Apache-2.0
"""Keeps what torch.export prints where it fails out of the user's terminal.

It prints whole graphs on standard error, some of them twice, before it raises. The error that
follows says where and why; what was printed is logged, so that it can be had.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

_LOG = logging.getLogger("trtpack.stderr")
_SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_UNFOUND = "Unable to find user code"
"""What PyTorch warns of where it prints a graph without the user's line."""


@contextmanager
def quiet_export() -> Iterator[None]:
    """Within, standard error is held back: logged where the block raises, else printed after it."""
    held = io.StringIO()
    _SHAPES.addFilter(_is_found)
    try:
        with redirect_stderr(held):
            yield
    except Exception:
        for line in held.getvalue().splitlines():
            _LOG.info("%s", line)
        raise
    else:
        sys.stderr.write(held.getvalue())
    finally:
        _SHAPES.removeFilter(_is_found)


def _is_found(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_UNFOUND)
